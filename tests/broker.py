"""Which Kafka the tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onerec.kafka.embedded import EmbeddedBroker


@dataclass(frozen=True)
class Broker:
    """A broker for the tests."""

    kind: str
    bootstrap_servers: str
    exactly_once: bool
    """Whether it keeps Kafka's transaction contract."""


@contextmanager
def running_broker(directory: Path) -> Iterator[Broker]:
    """The broker of this test run."""
    with EmbeddedBroker(directory) as broker:
        yield Broker("embedded", broker.bootstrap_servers, exactly_once=False)
