"""What the trainer has learned from, by its journal, against what the topics hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.findings import Findings, Kind
from audit.journal import Run
from audit.refusals import Refusals
from onerec.settings import Settings
from schemas.records import OffsetRange
from schemas.topics import PREFERENCES, SESSIONS

TRAINER = "trainer"
NEVER = 2**62
"""Place of what no range holds."""
Part = tuple[str, int]
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Consumable:
    """Records of one partition: offsets, and ids by which the trainer applies each once (-1 for none)."""

    offsets: Longs
    ids: Longs


@dataclass(slots=True)
class _Range:
    """A range of one step."""

    step: int
    place: int
    """Its place in the order of consumption."""
    journal_offset: int
    of: OffsetRange
    refused: bool


class LearningAudit:
    """Compares the last run of the journal with the records of sessions and preferences."""

    def __init__(self, settings: Settings, findings: Findings, refusals: Refusals) -> None:
        self._settings, self._findings, self._refusals = settings, findings, refusals

    def run(self, run: Run, records: Mapping[Part, Consumable]) -> None:
        """Every record is consumed once, and applied once by its id."""
        by_part: dict[Part, list[_Range]] = {}
        place = 0
        for offset, entry in run.steps:
            for each in entry.ranges:
                found = _Range(entry.step, place, offset, each, entry.refused is not None)
                by_part.setdefault((each.topic, each.partition), []).append(found)
                place += 1
        for topic in (SESSIONS.name, PREFERENCES.name):
            firsts = self._firsts(topic, by_part, records)
            for (name, partition), consumable in records.items():
                if name == topic:
                    ranges = by_part.get((name, partition), [])
                    self._check_coverage(topic, partition, consumable, ranges)
                    self._check_applied(topic, partition, consumable, ranges, firsts[partition])

    def _check_coverage(self, topic: str, partition: int, consumable: Consumable, ranges: list[_Range]) -> None:
        line = self._findings.line(_line(topic))
        offsets = consumable.offsets
        changes = np.zeros(len(offsets) + 1, np.int64)
        for each in ranges:
            first, after = np.searchsorted(offsets, (each.of.first_offset, each.of.next_offset))
            changes[first] += 1
            changes[after] -= 1
            if after - first != each.of.records:
                detail = f"step {each.step} had {each.of.records} records, there are {after - first}"
                self._add(topic, Kind.WRONG, partition, each.of.first_offset, detail)
        times = np.cumsum(changes[:-1])
        end = max((each.of.next_offset for each in ranges), default=0)
        due = offsets < end
        line.expected += int(due.sum())
        line.found += int((times[due] > 0).sum())
        pending = int((~due).sum())
        if pending:
            self._add(topic, Kind.OPEN, partition, end, "not consumed yet", count=pending)
        for first, count in _stretches(offsets, due & (times == 0)):
            self._add(topic, Kind.MISSING, partition, first, f"{count} records that no step consumed", count=count)
        for first, count in _stretches(offsets, times > 1):
            steps = [each.step for each in ranges if each.of.first_offset <= first < each.of.next_offset]
            detail = f"{count} records that steps {steps[:4]} consumed"
            self._add(topic, Kind.DOUBLE, partition, first, detail, count=count)

    def _firsts(
        self, topic: str, by_part: Mapping[Part, list[_Range]], records: Mapping[Part, Consumable]
    ) -> dict[int, Longs]:
        """By partition, for each record the range that consumed it as the first of its id; NEVER for none."""
        parts = [partition for name, partition in records if name == topic]
        if not parts:
            return {}
        places, ids, owner = [], [], []
        for partition in parts:
            consumable = records[topic, partition]
            places.append(_consumed_at(consumable.offsets, by_part.get((topic, partition), [])))
            ids.append(consumable.ids)
            owner.append(np.arange(len(consumable.ids)))
        place, identifier, row = np.concatenate(places), np.concatenate(ids), np.concatenate(owner)
        order = np.lexsort((row, place, identifier))
        ranked = identifier[order]
        first = np.zeros(len(order), np.bool_)
        first[order] = np.concatenate(([True], ranked[1:] != ranked[:-1])) if len(order) else np.empty(0, np.bool_)
        taken_by = np.where(first & (identifier >= 0), place, NEVER)
        stops = np.cumsum([len(each) for each in ids])
        return dict(zip(parts, np.split(taken_by, stops[:-1]), strict=True))

    def _check_applied(
        self, topic: str, partition: int, consumable: Consumable, ranges: list[_Range], taken_by: Longs
    ) -> None:
        """What a step says it applied is what was new to it, less what it refused."""
        if topic == PREFERENCES.name and self._settings.trainer.preference_loss == "none":
            return
        refused = self._refusals.offsets(TRAINER, topic, partition)
        applied = repeated = 0
        for each in ranges:
            start, end = np.searchsorted(consumable.offsets, (each.of.first_offset, each.of.next_offset))
            new = int((taken_by[start:end] == each.place).sum())
            repeated += int(end - start) - new
            applied += each.of.applied
            letters = int(np.diff(np.searchsorted(refused, (each.of.first_offset, each.of.next_offset)))[0])
            if each.of.applied > new:
                detail = f"step {each.step} applied {each.of.applied} records, {new} were new"
                self._add(topic, Kind.DOUBLE, partition, each.of.first_offset, detail, count=each.of.applied - new)
            elif each.of.applied + letters < new and not each.refused:
                lost = new - each.of.applied - letters
                detail = f"step {each.step} applied {each.of.applied} records, {new} were new, {letters} refused"
                self._add(topic, Kind.MISSING, partition, each.of.first_offset, detail, count=lost)
        if repeated:
            detail = "consumed, known by its id, not applied again"
            self._add(topic, Kind.REPEATED, partition, 0, detail, count=repeated)

    def _add(self, topic: str, kind: Kind, partition: int, offset: int, detail: str, *, count: int = 1) -> None:
        self._findings.add(_line(topic), kind, (topic, partition, offset), detail, count=count)


def _line(topic: str) -> str:
    return f"{topic} learned"


def _consumed_at(offsets: Longs, ranges: Iterable[_Range]) -> Longs:
    """For each record the place of the first range that holds it; NEVER where none does."""
    places = np.full(len(offsets), NEVER, np.int64)
    for each in ranges:
        first, after = np.searchsorted(offsets, (each.of.first_offset, each.of.next_offset))
        places[first:after] = np.minimum(places[first:after], each.place)
    return places


def _stretches(offsets: Longs, chosen: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """First offset and length of each run of chosen records."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False]))))
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield int(offsets[first]), after - first
