"""The brokers that faults run on: an Apache Kafka process, three of them as a cluster, or the embedded broker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.cluster import KafkaCluster
from chaos.kafka_process import KafkaProcess, kafka_home
from onerec.errors import DependencyMissingError
from onerec.kafka.embedded import EmbeddedBroker
from onerec.settings import KafkaSettings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker."""

    kind: str
    kafka: KafkaSettings
    """How to reach it, without a prefix."""
    exactly_once: bool
    """Whether it keeps Kafka's transaction contract: the embedded one serves what was aborted."""
    process: KafkaProcess | None = None
    """Where it is one node that may be stopped and started again."""
    cluster: KafkaCluster | None = None
    """Where it is several nodes, each of which may be."""


@contextmanager
def _apache(directory: Path) -> Iterator[Broker]:
    with KafkaProcess(kafka_home(), directory) as process:
        kafka = KafkaSettings(bootstrap_servers=process.bootstrap_servers)
        yield Broker("kafka", kafka, exactly_once=True, process=process)


@contextmanager
def _cluster(directory: Path) -> Iterator[Broker]:
    with KafkaCluster(directory) as cluster:
        yield Broker("cluster", cluster.kafka, exactly_once=True, cluster=cluster)


@contextmanager
def _embedded(directory: Path) -> Iterator[Broker]:
    with EmbeddedBroker(directory) as broker:
        yield Broker("embedded", KafkaSettings(bootstrap_servers=broker.bootstrap_servers), exactly_once=False)


KINDS: dict[str, Callable[[Path], AbstractContextManager[Broker]]] = {
    "kafka": _apache,
    "cluster": _cluster,
    "embedded": _embedded,
}
"""By the name that `--broker` takes; each raises DependencyMissingError where it cannot be had here."""


def best_kind() -> str:
    """Apache Kafka where there is one, else the embedded broker, on which fewer faults can be shown."""
    try:
        kafka_home()
    except DependencyMissingError as error:
        LOG.warning("%s So the embedded broker is used, and what it cannot show is left out.", error.problem)
        return "embedded"
    return "kafka"
