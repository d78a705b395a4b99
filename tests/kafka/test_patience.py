"""What passes is asked again; what does not is said at once."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from onerec.kafka.patience import ask


class Broker:
    """Answers each question with the next of its errors, and at last with 7."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        return 7


def test_a_cluster_that_loses_a_broker_is_asked_again() -> None:
    broker = Broker(
        KafkaError._DESTROY_BROKER, KafkaError._TRANSPORT, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._TIMED_OUT
    )
    assert ask(broker, 60.0) == 7
    assert broker.asked == 5


def test_a_leader_just_elected_is_asked_again() -> None:
    broker = Broker(KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE)
    assert ask(broker, 60.0) == 7
    assert broker.asked == 3


def test_what_does_not_pass_is_said_at_once() -> None:
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        ask(broker, 60.0)
    assert broker.asked == 1


def test_patience_ends() -> None:
    with pytest.raises(KafkaException):
        ask(Broker(*[KafkaError._TRANSPORT] * 1000), 0.0)
