"""A follower sees every record of a topic, in order, and knows where it is."""

from __future__ import annotations

import pytest

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import clients, metadata
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.records import Impression
from schemas.topics import IMPRESSIONS, id_key
from tests.kafka.reading import dead_letters

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
    writer.flush(60)
    got: list[Received] = []
    follower = TopicFollower(kafka, IMPRESSIONS, got.append, service="test")
    assert follower.catch_up(60) == 100
    assert sum(follower.next_offsets().values()) == 100
    for user_id in range(20):
        assert [r.record.position for r in got if r.record.user_id == user_id] == list(range(5))
    assert all(r.timestamp_ms == r.record.time_ms for r in got)
    writer.send(IMPRESSIONS, id_key(3), impression(3, 9))
    writer.flush(60)
    while len(got) < 101:
        follower.poll(1.0)
    assert got[-1].record.position == 9
    follower.close()


def test_goes_on_where_it_was_told_to(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    for position in range(6):
        writer.send(IMPRESSIONS, None, impression(1, position), partition=position % 2)
    writer.flush(60)
    got: list[Received] = []
    follower = TopicFollower(kafka, IMPRESSIONS, got.append, partitions=[1], start={1: 2}, service="test")
    assert follower.catch_up(60) == 1
    assert [(received.partition, received.offset) for received in got] == [(1, 2)]
    assert follower.next_offsets() == {1: 3}
    assert follower.catch_up(60) == 0
    follower.close()


@pytest.mark.parametrize("start", [7, -3])
def test_a_start_that_the_log_does_not_have_is_named(kafka: KafkaSettings, start: int) -> None:
    with pytest.raises(CheckFailedError, match=rf"impressions\[0\] has offsets 0 to 0.*go on at {start}"):
        TopicFollower(kafka, IMPRESSIONS, lambda _: None, start={0: start}, service="test")


def test_what_is_refused_does_not_hold_it_up(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    for value in (b"junk", b"", None):
        writer.producer.produce(clients.topic_name(kafka, IMPRESSIONS), value, partition=0)
    writer.flush(60)
    follower = TopicFollower(kafka, IMPRESSIONS, lambda _: None, service="test-follower")
    assert follower.catch_up(60) == 0
    assert follower.next_offsets() == {0: 3, 1: 0}
    follower.close()
    assert [letter.record.reason for letter in dead_letters(kafka)] == [Reason.UNDECODABLE] * 3


def test_a_missing_topic_is_named(bare_kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    with pytest.raises(DependencyMissingError, match=r"impressions\. Run `onerec topics create`"):
        TopicFollower(bare_kafka, IMPRESSIONS, lambda _: None, service="test")
