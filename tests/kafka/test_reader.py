"""Bad input goes to dead-letters with its reason, whole, and reading goes on."""

from __future__ import annotations

import dataclasses
import time

import pytest
from confluent_kafka import TopicPartition
from prometheus_client import REGISTRY

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received, RecordReader
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.records import Action, DeadLetter
from schemas.topics import ACTIONS, IMPRESSIONS, SESSIONS, id_key
from tests.kafka.reading import assigned, dead_letters
from tests.schemas.examples import BY_TYPE, TIME_MS

pytestmark = pytest.mark.broker
GOOD: Action = BY_TYPE[Action]


def read(reader: RecordReader, until: int, refused: DeadLetters) -> list[Received]:
    """Read until so many records have been taken or refused."""
    got: list[Received] = []
    deadline_s = time.monotonic() + 60
    while len(got) + refused.count < until and time.monotonic() < deadline_s:
        got += reader.read(100, 0.5)
    return got


def test_bad_records_are_refused_and_the_stream_goes_on(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    name = clients.topic_name(kafka, ACTIONS)
    future_ms = time.time_ns() // 1_000_000 + 7_200_000
    writer.send(ACTIONS, id_key(7), GOOD, timestamp_ms=TIME_MS)
    writer.producer.produce(name, b"\xff junk", b"7", timestamp=TIME_MS + 1)
    writer.send(ACTIONS, id_key(7), dataclasses.replace(GOOD, watch_ms=-1))
    writer.producer.produce(name, b"\xc3\x01" + b"\x00" * 8 + b"rest", b"7")
    writer.send(ACTIONS, id_key(7), dataclasses.replace(GOOD, time_ms=future_ms), timestamp_ms=future_ms)
    writer.producer.produce(name, None, b"7")
    writer.send(ACTIONS, id_key(7), dataclasses.replace(GOOD, item_id=22))
    writer.flush(60)
    refused = DeadLetters(kafka, "test-reader")
    consumer = assigned(kafka, [ACTIONS])
    got = read(RecordReader(consumer, [ACTIONS], kafka, refused=refused), 7, refused)
    refused.flush()
    consumer.close()
    assert [received.record.item_id for received in got] == [21, 22]
    assert got[0] == Received(ACTIONS, got[0].partition, got[0].offset, TIME_MS, b"7", GOOD)
    letters: list[DeadLetter] = [received.record for received in dead_letters(kafka)]
    assert [letter.reason for letter in letters] == [
        Reason.UNDECODABLE,
        Reason.OUT_OF_BOUNDS,
        Reason.UNKNOWN_SCHEMA,
        Reason.FUTURE,
        Reason.UNDECODABLE,
    ]
    first = letters[0]
    assert (first.topic, first.key, first.value, first.timestamp_ms) == ("actions", b"7", b"\xff junk", TIME_MS + 1)
    assert (first.partition, first.offset, first.service) == (got[0].partition, got[0].offset + 1, "test-reader")
    assert "watch_ms" in letters[1].detail
    assert letters[4].value is None
    counted = REGISTRY.get_sample_value(
        "onerec_dead_letters_total", {"service": "test-reader", "topic": "actions", "reason": "undecodable"}
    )
    assert counted == 2


def test_a_refused_record_of_the_largest_size_fits_into_dead_letters(bare_kafka: KafkaSettings) -> None:
    from onerec.kafka.admin import create_topics

    kafka = bare_kafka.model_copy(update={"max_message_bytes": 65_536})
    create_topics(kafka)
    refused = DeadLetters(kafka, "test")
    refused.refuse(
        topic=ACTIONS,
        partition=0,
        offset=0,
        timestamp_ms=-1,
        key=b"7",
        value=b"\xff" * 65_536,
        reason=Reason.UNDECODABLE,
        detail="x" * 100_000,
    )
    refused.flush()
    (letter,) = dead_letters(kafka)
    assert letter.record.value == b"\xff" * 65_536


def test_read_returns_as_soon_as_there_is_something(kafka: KafkaSettings) -> None:
    writer = RecordWriter(kafka)
    refused = DeadLetters(kafka, "test")
    consumer = assigned(kafka, [ACTIONS])
    reader = RecordReader(consumer, [ACTIONS], kafka, refused=refused)
    assert reader.read(1000, 0.0) == []
    writer.send(ACTIONS, id_key(7), GOOD)
    writer.flush(60)
    started_s = time.monotonic()
    assert [received.record for received in reader.read(1000, 120.0)] == [GOOD]
    assert time.monotonic() - started_s < 60
    consumer.close()


def test_a_missing_topic_stops_the_reader_with_the_remedy(bare_kafka: KafkaSettings) -> None:
    consumer = clients.consumer(bare_kafka, group="reader")
    consumer.subscribe([clients.topic_name(bare_kafka, SESSIONS)])
    refused = DeadLetters(bare_kafka, "test")
    reader = RecordReader(consumer, [SESSIONS], bare_kafka, refused=refused)
    with pytest.raises(DependencyMissingError, match=r"sessions.*onerec topics create") as caught:
        read(reader, 1, refused)
    assert caught.value.exit_code == 3
    consumer.close()


@pytest.mark.exactly_once  # the embedded broker is silent about offsets that it does not have
def test_offsets_that_are_gone_stop_the_reader(kafka: KafkaSettings) -> None:
    consumer = clients.consumer(kafka, auto_offset_reset="error")
    consumer.assign([TopicPartition(clients.topic_name(kafka, IMPRESSIONS), 0, 1000)])
    refused = DeadLetters(kafka, "test")
    reader = RecordReader(consumer, [IMPRESSIONS], kafka, refused=refused)
    with pytest.raises(CheckFailedError, match="no longer has"):
        read(reader, 1, refused)
    consumer.close()


def test_a_refused_record_that_is_mostly_key_fits_too(bare_kafka: KafkaSettings) -> None:
    from onerec.kafka.admin import create_topics

    kafka = bare_kafka.model_copy(update={"max_message_bytes": 65_536})
    create_topics(kafka)
    writer = RecordWriter(kafka)
    writer.producer.produce(clients.topic_name(kafka, ACTIONS), b"\xff", b"k" * 65_000)
    writer.flush(60)
    refused = DeadLetters(kafka, "test")
    consumer = assigned(kafka, [ACTIONS])
    read(RecordReader(consumer, [ACTIONS], kafka, refused=refused), 1, refused)
    refused.flush()
    consumer.close()
    (letter,) = dead_letters(kafka)
    assert letter.record.truncated
    assert (letter.record.value, letter.record.key) == (b"\xff", b"k" * 32_768)
