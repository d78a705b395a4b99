"""A follower sees every record of a topic, in order, and knows where it is."""

from __future__ import annotations

import pytest

from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import IMPRESSIONS, id_key

pytestmark = pytest.mark.broker


def impression(user_id: int, position: int = 0) -> Impression:
    return Impression(
        request_id=1, user_id=user_id, item_id=7, position=position, time_ms=1_650_000_000_000, produced_ms=1
    )


def test_catches_up_and_follows(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    sent = [impression(user_id, position) for position in range(5) for user_id in range(20)]
    for record in sent:
        writer.send(IMPRESSIONS, id_key(record.user_id), record, timestamp_ms=record.time_ms)
    writer.flush(10)
    got: list[Received] = []
    follower = TopicFollower(kafka, IMPRESSIONS, got.append, service="test")
    assert follower.catch_up(10) == 100
    assert sum(follower.next_offsets().values()) == 100
    for user_id in range(20):
        assert [r.record.position for r in got if r.record.user_id == user_id] == list(range(5))
    assert all(r.timestamp_ms == r.record.time_ms for r in got)
    writer.send(IMPRESSIONS, id_key(3), impression(3, 9))
    writer.flush(10)
    while len(got) < 101:
        follower.poll(1.0)
    assert got[-1].record.position == 9
    follower.close()
