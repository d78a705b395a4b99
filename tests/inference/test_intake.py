"""A partition that goes away while requests are read: what was read of it is forgotten whole, and nothing skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from inference.worker.intake import Intake
from onerec.kafka import clients
from onerec.settings import KafkaSettings
from schemas.records import Request
from schemas.topics import REQUESTS
from tests.hostile.records import CODECS
from tests.inference.publishing import settings_of
from tests.recovery.bus import Entry, Message
from tests.recovery.bus_clients import Trouble

Step = Message | Callable[["Consumer"], None]


class Consumer:
    """Does what a script says: gives a message, or calls back as a rebalance does."""

    def __init__(self, script: list[Step | None]) -> None:
        self.script = script
        self.committed: list[tuple[int, int]] = []
        self.trouble = Trouble()

    def subscribe(self, _topics: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def poll(self, _timeout_s: float) -> Message | None:
        while self.script:
            step = self.script.pop(0)
            if step is None or isinstance(step, Message):
                return step
            step(self)
        return None

    def consume(self, count: int, _timeout_s: float) -> list[Message]:
        found: list[Message] = []
        while len(found) < count and (message := self.poll(0.0)) is not None:
            found.append(message)
        return found

    def commit(self, *, offsets: list[TopicPartition], **_: Any) -> None:
        self.committed += [(place.partition, place.offset) for place in offsets]

    def resume(self, _places: object) -> None:
        pass


def request(partition: int, offset: int) -> Message:
    value = CODECS[REQUESTS.name].encode(Request(request_id=offset, user_id=1, time_ms=1, produced_ms=1))
    return Message((REQUESTS.name, partition), offset, Entry(b"1", value))


def assign(*partitions: int) -> Step:
    return lambda consumer: consumer.callbacks["on_assign"](consumer, [TopicPartition("r", p) for p in partitions])


def revoke(*partitions: int) -> Step:
    return lambda consumer: consumer.callbacks["on_revoke"](consumer, [TopicPartition("r", p) for p in partitions])


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Intake, Consumer]]:
    def start(*script: Step | None) -> tuple[Intake, Consumer]:
        consumer = Consumer(list(script))
        monkeypatch.setattr(clients, "consumer", lambda *_args, **_more: consumer)
        settings = settings_of(KafkaSettings(), tmp_path)
        intake = Intake(settings, on_partitions=lambda _ours, _gone: None, before_revoke=lambda: None)
        intake.join()
        return intake, consumer

    return start


def test_a_partition_lost_between_two_requests_moves_no_offset_over_the_first(
    started: Callable[..., tuple[Intake, Consumer]],
) -> None:
    """Request 0 waits, request 1 comes, and the group takes the partition away: none of them may count as answered."""
    intake, consumer = started(assign(0, 1), request(0, 0), None, request(0, 1), revoke(0, 1), assign(0, 1))
    assert [received.offset for received in intake.read(0.1)] == [0]
    found = intake.read(0.1)
    intake.commit_where_due()
    assert all(offset == 0 for _, offset in consumer.committed), "request 0 would never be answered"
    assert found == []
    assert intake.in_flight() == 0

    consumer.script += [request(0, 0), request(0, 1)]
    assert [received.offset for received in intake.read(0.1)] == [0, 1]


def test_requests_of_partitions_that_stay_are_kept(started: Callable[..., tuple[Intake, Consumer]]) -> None:
    intake, consumer = started(assign(0, 1), request(0, 5), request(1, 7), revoke(0), request(1, 8))
    assert [(received.partition, received.offset) for received in intake.read(0.1)] == [(1, 7), (1, 8)]
    intake.answered(1, 7)
    intake.commit()
    assert (1, 8) in consumer.committed
    assert (0, 6) not in consumer.committed
