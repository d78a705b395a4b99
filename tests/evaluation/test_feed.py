"""An onlooker reads everything, refuses nothing, and knows up to which event time it has seen all."""

from __future__ import annotations

import pytest

from evaluation.feed import Feed, Horizon
from onerec.errors import DependencyMissingError
from onerec.kafka import metadata
from onerec.kafka.clients import topic_name
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import DEAD_LETTERS, IMPRESSIONS, REQUESTS, id_key

pytestmark = pytest.mark.broker
NOW = 1_650_000_000_000


def send(writer: RecordWriter, user_ids: range, time_ms: int) -> None:
    for user_id in user_ids:
        record = Impression(request_id=1, user_id=user_id, item_id=2, position=0, time_ms=time_ms, produced_ms=time_ms)
        writer.send(IMPRESSIONS, id_key(user_id), record, timestamp_ms=time_ms)
    writer.flush(60)


def test_what_cannot_be_read_is_counted_and_not_refused(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    send(writer, range(20), NOW)
    writer.producer.produce(topic_name(kafka, IMPRESSIONS), b"no Avro", b"1")
    send(writer, range(20, 30), NOW)
    feed, found = Feed(kafka, (IMPRESSIONS, REQUESTS, DEAD_LETTERS)), list[Received]()
    feed.read_to_end(found.extend, 60)
    assert sorted(each.record.user_id for each in found) == list(range(30))
    assert feed.skipped == 1
    feed.read_to_end(found.extend, 60)
    assert len(found) == 30
    feed.close()


def test_the_horizon_follows_what_has_been_read(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    feed = Feed(kafka, (IMPRESSIONS,))
    horizon = Horizon(feed, (IMPRESSIONS,), settle_s=0.05)
    counts: list[int] = []
    for time_ms in (NOW, NOW + 5000):
        send(writer, range(50), time_ms)
        reached_ms, seen = None, 0
        while reached_ms != time_ms:
            received = feed.poll(0.02)
            seen += len(received)
            for each in received:
                horizon.saw(each.record.time_ms)
            reached_ms = horizon.reached() or reached_ms
        counts.append(seen)
    assert counts == [50, 50]
    feed.close()


def test_a_missing_topic_is_named(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    elsewhere = kafka.model_copy(update={"topic_prefix": f"{kafka.topic_prefix}none-"})
    with pytest.raises(DependencyMissingError, match="onerec topics create"):
        Feed(elsewhere, (IMPRESSIONS,))
