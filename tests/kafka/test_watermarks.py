"""Where a partition ends is asked until the leader that is there now answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from onerec.errors import DependencyMissingError
from onerec.kafka import metadata
from onerec.kafka.trouble import Trouble
from onerec.kafka.watermarks import _listed
from onerec.settings import KafkaSettings

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")


class Client:
    """Knows who leads the partition as of its last look at the cluster, and asks that broker alone."""

    def __init__(self) -> None:
        self.asks, self.leads = 1, 2

    def list_topics(self, _topic: str, timeout: float) -> None:
        """The leader as of now."""
        assert timeout > 0
        self.asks = self.leads

    def get_watermark_offsets(self, _part: TopicPartition, timeout: float) -> tuple[int, int]:
        """A dead broker does not answer."""
        assert timeout > 0
        if self.asks != self.leads:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 3, 9


def test_a_leader_that_has_died_is_not_asked_for_ever() -> None:
    client: Any = Client()
    assert _listed(client, KAFKA, ("topic", 0), 5.0) == (3, 9)


class Started:
    """A broker that has just started: it learns of its topics by and by, or never."""

    trouble = Trouble(KAFKA)

    def __init__(self, looks_until_known: float) -> None:
        self.looks, self.looks_until_known = 0, looks_until_known

    def list_topics(self, _topic: str | None = None, timeout: float = -1) -> Any:
        """What it knows."""
        assert timeout > 0
        self.looks += 1
        known = self.looks > self.looks_until_known
        return SimpleNamespace(topics={"topic": SimpleNamespace(partitions={0: None})} if known else {})

    def get_watermark_offsets(self, _part: TopicPartition, timeout: float) -> tuple[int, int]:
        """Of what it knows."""
        assert timeout > 0
        if self.looks <= self.looks_until_known:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return 3, 9

    def poll(self, _timeout: float = -1) -> None:
        """Nothing."""


def test_a_broker_that_has_just_started_is_given_time_to_learn_of_the_topic() -> None:
    client: Any = Started(looks_until_known=3)
    assert _listed(client, KAFKA, ("topic", 0), 5.0) == (3, 9)


def test_a_topic_that_does_not_appear_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    client: Any = Started(looks_until_known=float("inf"))
    with pytest.raises(DependencyMissingError, match="topic topic"):
        _listed(client, KAFKA, ("topic", 0), 5.0)
