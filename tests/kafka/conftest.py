"""An Apache Kafka of these tests' own, for what only a process that they configure can show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka_process import KafkaProcess


@pytest.fixture(scope="session")
def kafka_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaProcess]:
    """Apache Kafka at KAFKA_HOME: it asks for passwords on a second listener and looks for old records all the time."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME names no Apache Kafka to configure")
    with KafkaProcess(Path(home), tmp_path_factory.mktemp("kafka")) as process:
        yield process
