"""The journal by seeds: each new seed begins a model of its own, whose versions count on from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from schemas.records import JournalEntry, JournalKind
from trainer.journal import Story, read_story

Placed = tuple[int, JournalEntry]
"""An entry with its offset."""


@dataclass(frozen=True)
class Lineage:
    """The entries from one seed's start up to the next one's, with their offsets."""

    entries: Sequence[Placed]
    seed: JournalEntry | None
    """The start that names what the seed was made from; None where the journal's beginning is gone."""

    @cached_property
    def story(self) -> Story:
        """From the seed's first step on. Raises CheckFailedError where a step is missing."""
        return read_story(self.entries, after_step=0)

    @property
    def next_offset(self) -> int:
        """After the last entry."""
        return self.entries[-1][0] + 1

    def story_from(self, offset: int, *, after_step: int) -> Story:
        """What came after a checkpoint of step `after_step`, when the journal stood at `offset`."""
        before = [entry.epoch for at, entry in self.entries if at < offset]
        later = (placed for placed in self.entries if placed[0] >= offset)
        return read_story(later, after_step=after_step, epoch=max(before, default=0))

    def published(self) -> dict[int, Placed]:
        """The valid publish entry of each version."""
        epoch, found = 0, dict[int, Placed]()
        for offset, entry in self.entries:
            if entry.epoch < epoch:
                continue
            epoch = entry.epoch
            if entry.kind is JournalKind.PUBLISH and entry.version is not None:
                found[entry.version] = (offset, entry)
        return found


def lineages(entries: Sequence[Placed]) -> list[Lineage]:
    """Split a journal at the starts of seeds, in the order of the log."""
    epoch, cuts = 0, list[int]()
    for place, (_, entry) in enumerate(entries):
        if entry.epoch < epoch:
            continue
        epoch = entry.epoch
        if entry.kind is JournalKind.START and entry.ranges:
            cuts.append(place)
    if not entries:
        return []
    if not cuts or cuts[0] > 0:
        cuts.insert(0, 0)
    parts = [entries[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(entries)], strict=True)]
    firsts = [part[0][1] for part in parts]
    seeds = [entry if entry.kind is JournalKind.START and entry.ranges else None for entry in firsts]
    return [Lineage(part, seed) for part, seed in zip(parts, seeds, strict=True)]
