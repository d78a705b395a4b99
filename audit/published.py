"""One user's history as it must have been: entries with the labels that are certain, and those that may be there.

When the labels of a late action reached the history is not on the topics. So an entry's labels lie between what its
own exposure gives and what the late actions of the item add, and never become less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from schemas.packed import unpack_longs
from schemas.records import History, PreferencePair, Session

Packed = History | Session | PreferencePair


@dataclass(slots=True, eq=False)
class Entry:
    """One exposure in the history."""

    item_id: int
    time_ms: int
    least: int
    """Label bits that are certainly there."""
    most: int
    """Label bits that may be there."""
    known: int = 0
    """Label bits that were there before: they stay."""


@dataclass(slots=True)
class Timeline:
    """The newest n entries, oldest first."""

    keep: int
    entries: list[Entry] = field(default_factory=list)

    def append(self, entries: Iterable[Entry]) -> None:
        """A session's exposures come last."""
        self.entries = [*self.entries, *entries][-self.keep :]

    def with_late(self, entry: Entry) -> tuple[Timeline, Timeline]:
        """An exposure that came late takes its place by time: what it found before it, and the whole then."""
        at = len(self.entries)
        while at and self.entries[at - 1].time_ms > entry.time_ms:
            at -= 1
        whole = [*self.entries[:at], entry, *self.entries[at:]]
        surplus = max(0, len(whole) - self.keep)
        return Timeline(self.keep, whole[surplus : max(surplus, at)]), Timeline(self.keep, whole[surplus:])


def difference(entries: Sequence[Entry], record: Packed, *, monotone: bool) -> str:
    """How a record's history differs from these entries, empty where it does not.

    `monotone`: labels that were there before have to be there still, and these are remembered.
    """
    problem = sequence_difference(entries, record)
    if problem:
        return problem
    for place, (entry, labels) in enumerate(zip(entries, record.history_labels, strict=True)):
        least = entry.least | entry.known if monotone else entry.least
        if least & ~labels or labels & ~entry.most:
            between = f"{least}" if least == entry.most else f"{least} to {entry.most}"
            return f"entry {place} (item {entry.item_id}) has labels {labels}, which must be {between}"
        if monotone:
            entry.known = labels
    return ""


def sequence_difference(entries: Sequence[Entry], record: Packed) -> str:
    """The same for items and times alone."""
    items, times = unpack_longs(record.history_items), unpack_longs(record.history_times_ms)
    if len(items) != len(entries) or len(items) != len(times) or len(items) != len(record.history_labels):
        return f"the history has {len(items)} entries instead of {len(entries)}"
    for place, (entry, item_id, time_ms) in enumerate(zip(entries, items, times, strict=True)):
        if (entry.item_id, entry.time_ms) != (item_id, time_ms):
            wanted = f"item {entry.item_id} at {entry.time_ms}"
            return f"entry {place} is item {item_id} at {time_ms} instead of {wanted}"
    return ""


def entries_of(record: Packed, most: Callable[[int, int], int]) -> list[Entry]:
    """A record's history as entries; `most(item, time)` are label bits that late actions may add."""
    items, times = unpack_longs(record.history_items), unpack_longs(record.history_times_ms)
    return [
        Entry(item_id, time_ms, labels, labels | most(item_id, time_ms))
        for item_id, time_ms, labels in zip(items, times, record.history_labels, strict=True)
    ]
