"""Reading by partition: oldest first, contiguous ranges, bad records in their place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onerec.errors import DependencyMissingError
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import OffsetRange
from schemas.topics import SESSIONS
from tests.trainer import toy
from trainer.intake import Intake

A, B = (SESSIONS.name, 0), (SESSIONS.name, 1)


@pytest.fixture
def intake(kafka: KafkaSettings) -> Iterator[Intake]:
    """Partition 0 holds times 10, 30, 50, partition 1 holds 20, something undecodable at 40, and 60."""
    writer = RecordWriter(kafka)
    for time, partition in ((10, 0), (20, 1), (30, 0), (50, 0)):
        writer.send(SESSIONS, b"7", toy.session(time, [1]), timestamp_ms=time, partition=partition)
    writer.producer.produce(kafka.topic_prefix + SESSIONS.name, b"no avro", b"7", timestamp=40, partition=1)
    writer.send(SESSIONS, b"7", toy.session(60, [1]), timestamp_ms=60, partition=1)
    writer.flush(10)
    intake = Intake(kafka, [SESSIONS])
    intake.add({A: 0, B: 0})
    intake.reach({A: 3, B: 3}, 10)
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


def test_lag_counts_what_has_not_been_taken(intake: Intake) -> None:
    assert intake.lag() == 6
    intake.take({A: 3, B: 1})
    assert intake.lag() == 2
    oldest = intake.oldest(SESSIONS)
    assert oldest is not None
    assert oldest.record.session_id == 60
