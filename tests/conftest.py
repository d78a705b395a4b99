"""Fixtures of all tests: the broker, and settings with topics of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from onerec.kafka import admin
from onerec.settings import KafkaSettings
from tests.broker import Broker, running_broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker that this run tests on; see tests/broker.py."""
    with running_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    """Settings for the broker with a prefix of the test's own; all topics exist, with two partitions by user."""
    unique = uuid.uuid4().hex[:8]
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"t{unique}-",
        group_prefix=f"g{unique}-",
        partitions=2,
    )
    admin.create_topics(settings)
    return settings
