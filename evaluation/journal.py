"""Compares, by offsets, what a topic holds with what the trainer's journal says was applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.records import JournalEntry, JournalKind, OffsetRange

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of the records of a topic."""

    records: int
    lost: int
    """Records that no step consumed."""
    duplicated: int
    """Records that more than one step consumed."""
    applied: int
    """Records that changed the model, by the journal's own count."""


def steps(entries: Iterable[JournalEntry]) -> list[JournalEntry]:
    """The steps that count, in order of the log.

    A step's entry is void where a newer trainer had started before it came. A trainer that resumes may write a
    step again: with the same ranges it is the same step.
    """
    epoch = 0
    found: dict[tuple[int, tuple[OffsetRange, ...]], JournalEntry] = {}
    for entry in entries:
        if entry.epoch < epoch:
            continue
        epoch = entry.epoch
        if entry.kind is JournalKind.STEP:
            found.setdefault((entry.step, entry.ranges), entry)
    return list(found.values())


def audit(topic: str, offsets: Mapping[int, Sequence[int]], entries: Iterable[JournalEntry]) -> Audit:
    """Compare the records of `topic`, by partition the offsets where records are, with the steps in `entries`."""
    ranges: dict[int, list[OffsetRange]] = {}
    for entry in entries:
        for each in entry.ranges:
            if each.topic == topic:
                ranges.setdefault(each.partition, []).append(each)
    lost = duplicated = 0
    for partition, places in offsets.items():
        times = times_consumed(np.sort(np.asarray(places, dtype=np.int64)), ranges.get(partition, []))
        lost += int((times == 0).sum())
        duplicated += int((times > 1).sum())
    applied = sum(each.applied for found in ranges.values() for each in found)
    return Audit(sum(map(len, offsets.values())), lost, duplicated, applied)


def times_consumed(offsets: Offsets, ranges: Iterable[OffsetRange]) -> Offsets:
    """For each of the sorted offsets [R], how many of the ranges hold it."""
    changes = np.zeros(len(offsets) + 1, dtype=np.int64)
    for each in ranges:
        changes[np.searchsorted(offsets, each.first_offset)] += 1
        changes[np.searchsorted(offsets, each.next_offset)] -= 1
    return np.cumsum(changes[:-1])


def stepped_ms(topic: str, places: Offsets, entries: Iterable[JournalEntry]) -> Offsets:
    """[R] when the first step that consumed each of the (partition, offset) `places` [R, 2] was journalled, else -1."""
    ends: dict[int, list[tuple[int, int]]] = {}
    for entry in entries:
        for each in entry.ranges:
            if each.topic == topic:
                ends.setdefault(each.partition, []).append((each.next_offset, entry.time_ms))
    found = np.full(len(places), -1, np.int64)
    for partition, told in ends.items():
        mine = places[:, 0] == partition
        next_offsets, times_ms = np.array(sorted(told), np.int64).T
        found[mine] = np.append(times_ms, -1)[np.searchsorted(next_offsets, places[mine, 1], side="right")]
    return found
