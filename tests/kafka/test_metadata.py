"""Topics that a broker does not tell of while it stops or starts are waited for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from onerec.errors import DependencyMissingError
from onerec.kafka import metadata
from onerec.kafka.trouble import Trouble
from onerec.settings import KafkaSettings

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")


@dataclass
class Topic:
    partitions: dict[int, None]


@dataclass
class Answer:
    topics: dict[str, Topic] = field(default_factory=dict)


WHOLE, BARE, NOTHING = Answer({"items": Topic({0: None})}), Answer({"items": Topic({})}), Answer()


class Broker:
    """Gives its answers in turn, the last one again and again; None is none for a while."""

    trouble = Trouble(KAFKA)

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)

    def list_topics(self, _topic: str | None = None, timeout: float = -1) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            time.sleep(min(0.02, timeout))
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return answer

    def poll(self, timeout: float = -1) -> object:
        return timeout


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.4)
    monkeypatch.setattr(metadata, "SLICE_S", 0.1)
    monkeypatch.setattr(metadata, "APPEAR_POLL_S", 0.01)


@pytest.mark.parametrize("first", [NOTHING, BARE])
def test_a_broker_that_stops_after_half_an_answer_is_waited_for(first: Answer) -> None:
    broker = Broker(first, *[None] * 50, WHOLE)
    found: Any = metadata.require_names(broker, KAFKA, {"items"})
    assert found == WHOLE.topics


def test_a_topic_that_is_not_there_is_named() -> None:
    with pytest.raises(DependencyMissingError, match="topic items"):
        metadata.require_names(Broker(NOTHING), KAFKA, {"items"})
