"""What is sent arrives, or the writer says so."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError, Message

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, metadata
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import ACTIONS, IMPRESSIONS, id_key
from tests.kafka.reading import read_all
from tests.schemas.examples import BY_TYPE, TIME_MS

IMPRESSION: Impression = BY_TYPE[Impression]
NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1", broker_patience_s=0.3)


def send_until_it_fails(writer: RecordWriter, partition: int) -> None:
    for _ in range(600):
        writer.send(IMPRESSIONS, id_key(7), IMPRESSION, partition=partition)
        writer.poll(0.1)


@pytest.mark.broker
def test_time_partition_and_report_of_delivery(kafka: KafkaSettings) -> None:
    reported: list[tuple[KafkaError | None, int | None]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        reported.append((error, message.offset()))

    writer = RecordWriter(kafka)
    writer.send(IMPRESSIONS, id_key(7), IMPRESSION, timestamp_ms=TIME_MS, partition=1, on_delivery=delivered)
    writer.flush(60)
    assert reported == [(None, 0)]
    (received,) = read_all(kafka, IMPRESSIONS)
    assert (received.partition, received.timestamp_ms, received.record) == (1, TIME_MS, IMPRESSION)


@pytest.mark.broker
def test_a_missing_topic_is_named_and_not_made(bare_kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    writer = RecordWriter(bare_kafka)
    with pytest.raises(DependencyMissingError, match=r"impressions\. Run `onerec topics create`"):
        writer.send(IMPRESSIONS, id_key(7), IMPRESSION)
    assert len(admin.create_topics(bare_kafka, topics=[IMPRESSIONS])) == 1


@pytest.mark.broker
def test_a_failed_delivery_is_raised_at_the_next_send(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    writer.send(IMPRESSIONS, id_key(7), IMPRESSION, partition=0)
    writer.flush(60)
    with pytest.raises(DependencyMissingError, match="impressions"):
        send_until_it_fails(writer, partition=99)


@pytest.mark.broker
def test_what_does_not_fit_its_schema_is_no_kafka_error(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    with pytest.raises(ValueError, match="no actions record"):
        writer.send(ACTIONS, id_key(7), IMPRESSION)


def test_without_a_broker_it_says_so() -> None:
    writer = RecordWriter(NOBODY)
    with pytest.raises(DependencyMissingError, match=r"No Kafka broker answers at 127\.0\.0\.1:1.*bootstrap_servers"):
        writer.send(IMPRESSIONS, id_key(7), IMPRESSION)


@pytest.mark.exactly_once
@pytest.mark.broker
def test_what_a_transaction_aborts_is_never_read(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka, transactional_id=kafka.group_prefix + "writer")
    writer.producer.init_transactions(60)
    writer.producer.begin_transaction()
    writer.send(IMPRESSIONS, id_key(7), IMPRESSION, partition=0)
    writer.flush(60)
    assert admin.end_offsets(kafka, IMPRESSIONS) == {0: 0, 1: 0}, "an open transaction cannot be read"
    writer.producer.abort_transaction(60)
    writer.producer.begin_transaction()
    writer.send(IMPRESSIONS, id_key(8), IMPRESSION, partition=0)
    writer.producer.commit_transaction(60)
    deadline_s = time.monotonic() + 60
    while admin.end_offsets(kafka, IMPRESSIONS) != {0: 4, 1: 0}:  # two records and two markers, the last one soon
        assert time.monotonic() < deadline_s
    keys: list[bytes | None] = []
    follower = TopicFollower(kafka, IMPRESSIONS, lambda received: keys.append(received.key), service="test")
    follower.catch_up(60)
    assert keys == [b"8"]
    assert follower.next_offsets() == {0: 4, 1: 0}
    follower.close()
