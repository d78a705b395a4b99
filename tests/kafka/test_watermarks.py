"""Where a partition ends is asked until the leader that is there now answers."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from onerec.kafka.watermarks import _listed


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
    assert _listed(client, ("topic", 0), 5.0) == (3, 9)
