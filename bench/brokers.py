"""The broker of benches that run services: Apache Kafka where KAFKA_HOME names one, else the embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.kafka_process import KafkaProcess, kafka_home
from onerec.errors import DependencyMissingError
from onerec.kafka.embedded import EmbeddedBroker


@contextmanager
def broker_of(directory: Path) -> Iterator[tuple[str, str]]:
    """Bootstrap servers, and which broker it is."""
    try:
        home = kafka_home()
    except DependencyMissingError as missing:
        with EmbeddedBroker(directory) as embedded:
            yield embedded.bootstrap_servers, f"embedded (Tansu, in memory): {missing.problem}"
    else:
        with KafkaProcess(home, directory / "broker") as process:
            yield process.bootstrap_servers, "Apache Kafka"


@contextmanager
def no_settings_of_the_shell() -> Iterator[None]:
    """The services have settings of their own, and refuse names that they do not know."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if _is_setting(name)}
    try:
        yield
    finally:
        os.environ.update(kept)


def environment_of_services() -> dict[str, str]:
    """Those of the shell without its settings."""
    return {name: value for name, value in os.environ.items() if not _is_setting(name)}


def _is_setting(name: str) -> bool:
    return name.startswith("ONEREC_") and name != "ONEREC_LOG"
