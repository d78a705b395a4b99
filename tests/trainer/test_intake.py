"""Reading by partition: oldest first, contiguous ranges, bad records in their place."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.registry import codec
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import OffsetRange
from schemas.topics import SESSIONS
from tests.trainer import toy
from trainer.intake import Intake

A, B = (SESSIONS.name, 0), (SESSIONS.name, 1)
PATIENCE_S = 60.0


@pytest.fixture
def intake(kafka: KafkaSettings) -> Iterator[Intake]:
    """Partition 0 holds times 10, 30, 50, partition 1 holds 20, something undecodable at 40, and 60."""
    writer = RecordWriter(kafka)
    for time_ms, partition in ((10, 0), (20, 1), (30, 0), (50, 0)):
        writer.send(SESSIONS, b"7", toy.session(time_ms, [1]), timestamp_ms=time_ms, partition=partition)
    writer.producer.produce(kafka.topic_prefix + SESSIONS.name, b"no avro", b"7", timestamp=40, partition=1)
    writer.send(SESSIONS, b"7", toy.session(60, [1]), timestamp_ms=60, partition=1)
    writer.flush(PATIENCE_S)
    intake = Intake(kafka, [SESSIONS])
    intake.add({A: 0, B: 0})
    intake.reach({A: 3, B: 3}, PATIENCE_S)
    yield intake
    intake.close()


def test_oldest_first_over_the_partitions(intake: Intake) -> None:
    assert intake.choose({SESSIONS.name: 0}) == {}
    assert intake.choose({SESSIONS.name: 1}) == {A: 1}
    assert intake.choose({SESSIONS.name: 3}) == {A: 2, B: 1}
    assert intake.choose({SESSIONS.name: 4}) == {A: 2, B: 2}
    assert intake.choose({SESSIONS.name: 99}) == {A: 3, B: 3}


def test_ranges_lie_side_by_side(intake: Intake) -> None:
    first = intake.take(intake.choose({SESSIONS.name: 3}))
    rest = intake.take(intake.choose({SESSIONS.name: 99}))
    assert [received.record.session_id for received in first.records] == [10, 30, 20]
    assert [received.record.session_id for received in rest.records] == [50, 60]

    def of(partition: int, first_offset: int, next_offset: int, records: int) -> OffsetRange:
        return OffsetRange(
            topic=SESSIONS.name,
            partition=partition,
            first_offset=first_offset,
            next_offset=next_offset,
            records=records,
            applied=0,
        )

    assert first.ranges == (of(0, 0, 2, 2), of(1, 0, 1, 1))
    assert rest.ranges == (of(0, 2, 3, 1), of(1, 1, 3, 2))
    assert intake.take({}).ranges == ()


def test_bad_records_are_taken_like_others(intake: Intake) -> None:
    taken = intake.take({B: 2})
    assert [bad.message.offset() for bad in taken.bad] == [1]
    assert [received.offset for received in taken.records] == [0]
    assert taken.ranges[0].records == 2


def test_what_does_not_come_is_a_sentence(intake: Intake) -> None:
    with pytest.raises(DependencyMissingError, match=r"sessions could not be read to offset 4 within"):
        intake.reach({A: 4}, 0.2)


def test_a_flood_stays_with_the_broker_and_comes_whole(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty times as much as is taken: the queues stay bounded, nothing is left out or comes twice."""
    monkeypatch.setattr("trainer.intake.ENOUGH", 200)
    monkeypatch.setattr("trainer.intake.FETCH", 20)
    writer = RecordWriter(kafka)
    for number in range(3000):
        writer.send(SESSIONS, b"7", toy.session(number, [1]), timestamp_ms=1 + number, partition=number % 2)
    writer.flush(PATIENCE_S)
    intake = Intake(kafka, [SESSIONS])
    intake.add({A: 0, B: 0})
    taken: list[int] = []
    most = polls = 0
    while len(taken) < 500:
        assert (polls := polls + 1) < 20_000
        intake.poll(0.005)
        most = max(most, intake.waiting(SESSIONS))
        taken += [one.record.session_id for one in intake.take(intake.choose({SESSIONS.name: 1})).records]
    assert most <= 200 + 2 * 21, "each partition's half, and what a last fetch brings"
    intake.reach({A: 1500}, PATIENCE_S)  # a rerun needs all of one partition: it is read on, paused or not
    assert intake.read_to(A) == 1500
    intake.reach({B: 1500}, PATIENCE_S)
    taken += [one.record.session_id for one in intake.take({A: 1500, B: 1500}).records]
    intake.close()
    assert sorted(taken) == list(range(3000))


def test_a_step_longer_than_any_poll_interval_loses_no_place(kafka: KafkaSettings) -> None:
    """The trainer is in no group, so nobody takes its partitions away however long it does not poll."""
    impatient = {"session.timeout.ms": "500", "heartbeat.interval.ms": "100", "max.poll.interval.ms": "500"}
    writer = RecordWriter(kafka)
    for number in range(20):
        writer.send(SESSIONS, b"7", toy.session(number, [1]), timestamp_ms=1 + number, partition=number % 2)
    writer.flush(PATIENCE_S)
    intake = Intake(kafka.model_copy(update={"librdkafka": impatient}), [SESSIONS])
    intake.add({A: 0, B: 0})
    intake.reach({A: 1, B: 1}, PATIENCE_S)
    first = intake.take({A: 1, B: 1})
    time.sleep(2.0)  # the step
    intake.reach({A: 10, B: 10}, PATIENCE_S)
    rest = intake.take({A: 10, B: 10})
    intake.close()
    assert [one.offset for one in first.records] == [0, 0]
    assert [one.offset for one in rest.records] == [*range(1, 10)] * 2


def test_lag_counts_what_has_not_been_taken(intake: Intake) -> None:
    assert intake.lag() == 6
    intake.take({A: 3, B: 1})
    assert intake.lag() == 2
    oldest = intake.oldest(SESSIONS)
    assert oldest is not None
    assert oldest.record.session_id == 60


def test_a_marker_that_comes_after_its_record_was_taken_is_no_lag(kafka: KafkaSettings) -> None:
    """Who waits for a trainer that has learned all would wait for ever."""
    producer = clients.producer(kafka, transactional_id=f"{kafka.topic_prefix}sessions")
    producer.init_transactions(60)
    producer.begin_transaction()
    encoded = codec(kafka, SESSIONS).encode(toy.session(1, [1]))
    producer.produce(clients.topic_name(kafka, SESSIONS), encoded, b"7", partition=0, timestamp=1)
    producer.commit_transaction(60)
    intake = Intake(kafka, [SESSIONS])
    intake.add({A: 0, B: 0})
    intake.reach({A: 2}, PATIENCE_S)
    assert intake.lag() == 2
    assert len(intake.take({A: 1}).records) == 1
    assert intake.lag() == 0
    intake.close()
