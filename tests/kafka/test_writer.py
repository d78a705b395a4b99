"""What is sent arrives, or the writer says so."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients, metadata
from onerec.kafka.delivery import Deliveries
from onerec.kafka.registry import codec
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import Impression
from schemas.topics import ACTIONS, IMPRESSIONS, id_key
from tests.kafka.late_leader import Api, LateLeader
from tests.kafka.reading import committed_keys, read_all
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
def test_a_record_that_nobody_confirmed_is_there_or_raised(kafka: KafkaSettings) -> None:
    """Even where a later one was: brokers up to Kafka 4.2 take it from a producer of which they have no record."""
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    with LateLeader(kafka.bootstrap_servers, clients.topic_name(kafka, IMPRESSIONS), Api.PRODUCE, together=2) as late:
        writer = RecordWriter(kafka.model_copy(update={"bootstrap_servers": late.bootstrap_servers}), linger_ms=0)
        writer.send(IMPRESSIONS, b"1", IMPRESSION, partition=0, on_delivery=delivered)
        while late.asked < 1:
            writer.poll(0.01)
        writer.send(IMPRESSIONS, b"2", IMPRESSION, partition=0, on_delivery=delivered)
        try:
            writer.flush(60)
        except DependencyMissingError as error:
            assert "has to be sent again" in str(error)  # noqa: PT017 - not every broker loses it
    there = [received.key for received in read_all(kafka, IMPRESSIONS)]
    assert b"2" in there
    assert (b"1" in there) != bool(failed)


@pytest.mark.exactly_once
@pytest.mark.broker
def test_a_transaction_that_may_lack_a_record_does_not_count(kafka: KafkaSettings) -> None:
    topic, deliveries = clients.topic_name(kafka, IMPRESSIONS), Deliveries()
    value = codec(kafka, IMPRESSIONS).encode(IMPRESSION)
    with LateLeader(kafka.bootstrap_servers, topic, Api.PRODUCE, together=2) as late:
        beyond = kafka.model_copy(update={"bootstrap_servers": late.bootstrap_servers})
        producer = clients.producer(beyond, transactional_id=topic, linger_ms=0)
        producer.init_transactions(60)
        producer.begin_transaction()
        producer.produce(topic, value, b"1", 0, on_delivery=deliveries)
        while late.asked < 1:
            producer.poll(0.01)
        producer.produce(topic, value, b"2", 0, on_delivery=deliveries)
        assert producer.flush(60) == 0
        try:
            deliveries.check()
        except KafkaException:
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
    deadline_s = time.monotonic() + 60
    while admin.end_offsets(kafka, IMPRESSIONS)[0] < 2:  # the record or the two, then the marker
        assert time.monotonic() < deadline_s
    assert committed_keys(kafka, IMPRESSIONS) in ([], [b"1", b"2"])


@pytest.mark.exactly_once
@pytest.mark.broker
@pytest.mark.parametrize("serve", [lambda writer: writer.flush(60), lambda writer: send_until_it_fails(writer, 0)])
def test_who_is_fenced_is_told_so(kafka: KafkaSettings, serve: Callable[[RecordWriter], None]) -> None:
    fenced, successor = (RecordWriter(kafka, transactional_id=kafka.group_prefix + "writer") for _ in range(2))
    fenced.producer.init_transactions(60)
    fenced.producer.begin_transaction()
    successor.producer.init_transactions(60)
    for _ in range(3):  # the reports of those behind the first come after the error
        fenced.send(IMPRESSIONS, id_key(7), IMPRESSION, partition=0)
    with pytest.raises(DependencyMissingError, match="fenced by a newer instance"):
        serve(fenced)


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
    assert committed_keys(kafka, IMPRESSIONS) == [b"8"]
