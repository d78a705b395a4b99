"""Lost and duplicated records are found by offsets; what a resume writes again is not a duplicate."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluation.journal import Audit, audit, steps, times_consumed
from schemas.records import JournalEntry, JournalKind, OffsetRange


def span(first: int, end: int, *, partition: int = 0, topic: str = "sessions") -> OffsetRange:
    return OffsetRange(
        topic=topic, partition=partition, first_offset=first, next_offset=end, records=end - first, applied=1
    )


def entry(step: int, *ranges: OffsetRange, kind: JournalKind = JournalKind.STEP, epoch: int = 1) -> JournalEntry:
    return JournalEntry(
        model="onerec",
        step=step,
        kind=kind,
        epoch=epoch,
        ranges=ranges,
        seed=0,
        learning_rate=0.0,
        loss={},
        environment={},
        time_ms=0,
    )


def found(offsets: dict[int, list[int]], *entries: JournalEntry) -> tuple[int, int]:
    result = audit("sessions", offsets, steps(entries))
    return result.lost, result.duplicated


def test_every_record_in_one_step() -> None:
    offsets = {0: [0, 1, 3, 4], 1: [7]}
    entries = (entry(1, span(0, 3)), entry(2, span(3, 6), span(0, 8, partition=1), span(0, 99, topic="preferences")))
    assert audit("sessions", offsets, entries) == Audit(records=5, lost=0, duplicated=0, applied=3)


def test_a_gap_is_lost_and_an_overlap_is_duplicated() -> None:
    offsets = {0: list(range(10))}
    assert found(offsets, entry(1, span(0, 4)), entry(2, span(6, 10))) == (2, 0)
    assert found(offsets, entry(1, span(0, 6)), entry(2, span(4, 10))) == (0, 2)
    assert found(offsets, entry(1, span(0, 6))) == (4, 0)
    assert found(offsets) == (10, 0)


def test_gaps_between_records_are_not_lost() -> None:
    assert found({0: [0, 5]}, entry(1, span(0, 1)), entry(2, span(5, 6))) == (0, 0)


def test_a_step_written_again_by_a_resume_counts_once_and_another_with_its_number_twice() -> None:
    offsets = {0: [0, 1]}
    start = entry(0, kind=JournalKind.START, epoch=2)
    assert found(offsets, entry(1, span(0, 2)), start, entry(1, span(0, 2), epoch=2)) == (0, 0)
    assert found(offsets, entry(1, span(0, 2)), start, entry(1, span(1, 2), epoch=2)) == (0, 1)


def test_what_a_trainer_thought_dead_writes_is_void() -> None:
    start = entry(0, kind=JournalKind.START, epoch=2)
    assert found({0: [0, 1]}, entry(1, span(0, 1)), start, entry(2, span(1, 2), epoch=1)) == (1, 0)
    assert found({0: [0, 1]}, entry(1, span(0, 1)), start, entry(2, span(1, 2), epoch=2)) == (0, 0)


@given(
    st.lists(st.integers(0, 30), unique=True).map(sorted),
    st.lists(st.tuples(st.integers(0, 31), st.integers(0, 31)).map(sorted), max_size=6),
)
def test_as_counted_one_by_one(offsets: list[int], spans: list[list[int]]) -> None:
    expected = [sum(first <= offset < end for first, end in spans) for offset in offsets]
    ranges = [span(first, end) for first, end in spans]
    assert times_consumed(np.array(offsets, dtype=np.int64), ranges).tolist() == expected
