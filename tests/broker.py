"""Which Kafka the tests run on.

`ONEREC_BOOTSTRAP_SERVERS` names one that runs. Else the first of these that can be had, or the one that
`ONEREC_TEST_BROKER` names: `container` (testcontainers, image `ONEREC_TEST_KAFKA_IMAGE`, if a Docker engine answers),
`kafka` (Apache Kafka as a process, unpacked at `KAFKA_HOME`), `embedded`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka.admin import AdminClient

from chaos.containers import NO_ENGINE, engine
from onerec.errors import DependencyMissingError
from onerec.kafka.embedded import EmbeddedBroker
from onerec.settings import KafkaSettings
from tests.kafka_process import KafkaProcess

SERVERS = "ONEREC_BOOTSTRAP_SERVERS"
CHOICE = "ONEREC_TEST_BROKER"
IMAGE = "ONEREC_TEST_KAFKA_IMAGE"
HOME = "KAFKA_HOME"
DEFAULT_IMAGE = "confluentinc/cp-kafka:8.2.0"
CONTAINER_TIMEOUT_S = 240
ENGINE_TIMEOUT_S = 20
DELETE_TIMEOUT_S = 60


@dataclass(frozen=True)
class Broker:
    """A broker for the tests."""

    kind: str
    bootstrap_servers: str
    exactly_once: bool
    """Whether it keeps Kafka's transaction contract."""
    passed_over: tuple[str, ...] = ()
    """Why it is none of those that come first."""


class UnavailableError(Exception):
    """This kind of broker cannot be had here."""


@contextmanager
def running_broker(directory: Path) -> Iterator[Broker]:
    """The broker of this test run. Raises UnavailableError where the one asked for cannot be had."""
    with ExitStack() as stack:
        yield _first(stack, directory)


def plan() -> str:
    """What the tests will run on, for the head of the report."""
    if os.environ.get(SERVERS):
        return f"given ({SERVERS})"
    if os.environ.get(CHOICE):
        return f"{os.environ[CHOICE]} ({CHOICE})"
    problems: list[str] = []
    for name, kind in KINDS.items():
        problem = kind.missing()
        if problem is None:
            return "; ".join([name, *problems])
        problems.append(problem)
    raise AssertionError("the embedded broker is always there")


def delete_topics(kafka: KafkaSettings) -> None:
    """Remove the topics of a test, which its prefix names, so that brokers do not fill up with them."""
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    topics = client.list_topics(timeout=DELETE_TIMEOUT_S).topics
    names = [name for name in topics if name.startswith(kafka.topic_prefix)]
    for deleted in client.delete_topics(names).values() if names else ():
        deleted.result(DELETE_TIMEOUT_S)


def _first(stack: ExitStack, directory: Path) -> Broker:
    if os.environ.get(SERVERS):
        return Broker("given", os.environ[SERVERS], exactly_once=True)
    chosen = os.environ.get(CHOICE)
    if chosen and chosen not in KINDS:
        raise UnavailableError(f"{CHOICE}={chosen} is none of {', '.join(KINDS)}")
    problems: list[str] = []
    for name in (chosen,) if chosen else KINDS:
        problem = KINDS[name].missing()
        if problem is None:
            try:
                running = stack.enter_context(KINDS[name].start(directory))
                return replace(running, passed_over=tuple(problems))
            except UnavailableError as error:
                problem = str(error)
        problems.append(problem)
    raise UnavailableError("; ".join(problems))


@contextmanager
def _container(_directory: Path) -> Iterator[Broker]:
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer(_image()).with_kraft()
    # testcontainers sets the replication of the offsets topic only, and one node cannot have the usual three.
    container.with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
    container.with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
    container.with_env("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "4")
    container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    try:
        container.start(timeout=CONTAINER_TIMEOUT_S)
    except Exception as error:  # testcontainers raises what its parts raise
        container.stop()
        raise UnavailableError(f"container {_image()}: {error}") from error
    try:
        yield Broker("container", container.get_bootstrap_server(), exactly_once=True)
    finally:
        container.stop()


@contextmanager
def _kafka(directory: Path) -> Iterator[Broker]:
    with ExitStack() as stack:
        try:
            process = stack.enter_context(KafkaProcess(Path(os.environ[HOME]), directory))
        except (RuntimeError, DependencyMissingError) as error:
            raise UnavailableError(f"{HOME}={os.environ[HOME]}: {error}") from error
        yield Broker("kafka", process.bootstrap_servers, exactly_once=True)


@contextmanager
def _embedded(directory: Path) -> Iterator[Broker]:
    with EmbeddedBroker(directory) as broker:
        yield Broker("embedded", broker.bootstrap_servers, exactly_once=False)


def _image() -> str:
    return os.environ.get(IMAGE) or DEFAULT_IMAGE


def _no_container() -> str | None:
    """Why no container can be started; None where a Docker engine answers."""
    client = engine(ENGINE_TIMEOUT_S)
    if client is None:
        return NO_ENGINE
    client.close()
    return None


def _no_kafka() -> str | None:
    """Why Apache Kafka cannot be started; None where KAFKA_HOME holds one."""
    home = os.environ.get(HOME)
    if not home:
        return f"{HOME} is not set"
    if not (Path(home) / "bin" / "kafka-server-start.sh").is_file():
        return f"{HOME}={home} holds no Kafka"
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17 or newer"
    return None


@dataclass(frozen=True)
class Kind:
    """A kind of broker that the tests can start."""

    missing: Callable[[], str | None]
    """Why it cannot be had here; None where it can."""
    start: Callable[[Path], AbstractContextManager[Broker]]


KINDS = {
    "container": Kind(_no_container, _container),
    "kafka": Kind(_no_kafka, _kafka),
    "embedded": Kind(lambda: None, _embedded),
}
