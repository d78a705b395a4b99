"""What the trainer has learned from, by its journal, against what the topics hold, and against each version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from audit.findings import Findings, Kind, VersionFinding
from audit.refusals import Refusals
from onerec.settings import Settings
from schemas.codec import Codec, DecodeError
from schemas.records import JournalEntry, JournalKind, ModelVersion, OffsetRange, VersionStatus
from schemas.topics import MODEL_VERSIONS, PREFERENCES, SESSIONS, TRAINER_JOURNAL

TRAINER = "trainer"
Part = tuple[str, int]
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Consumable:
    """Records of one partition: offsets, and ids by which the trainer applies each once (-1 for none)."""

    offsets: Longs
    ids: Longs


@dataclass(slots=True)
class Run:
    """What one seed and its continuations did: entries of valid epochs, each step once."""

    steps: list[tuple[int, JournalEntry]] = field(default_factory=list)
    """With their offsets in the journal."""
    publishes: dict[int, tuple[int, JournalEntry]] = field(default_factory=dict)
    """By version."""
    interrupted: set[int] = field(default_factory=set)
    """Versions after which another trainer took over: it passes their number over where other weights came out."""


class Journal:
    """The journal of one model, folded: entries that an outdated trainer wrote after a newer start are void."""

    def __init__(self, findings: Findings, model: str) -> None:
        self._findings, self._model = findings, model
        self._epoch = 0
        self.runs: list[Run] = [Run()]
        self.void = 0

    def read(self, messages: Iterable[Message], codec: Codec) -> None:
        """Take in topic trainer-journal."""
        for message in messages:
            offset = message.offset() or 0
            try:
                entry: JournalEntry = codec.decode(message.value())
            except DecodeError as error:
                self._add(Kind.WRONG, offset, str(error))
                continue
            if entry.model == self._model:
                self.take(offset, entry)

    def take(self, offset: int, entry: JournalEntry) -> None:
        """Take in one entry."""
        line = self._findings.line(TRAINER_JOURNAL.name)
        line.found += 1
        if entry.epoch < self._epoch:
            self.void += 1
            return
        line.expected += 1
        run = self.runs[-1]
        if entry.kind is JournalKind.START:
            self._epoch = entry.epoch
            run.interrupted |= {max(run.publishes)} if run.publishes else set()
            if entry.ranges and (run.steps or run.publishes):
                self.runs.append(Run())
        elif entry.kind is JournalKind.PUBLISH:
            run.publishes[entry.version or 0] = (offset, entry)
        else:
            self._take_step(run, offset, entry)

    def _take_step(self, run: Run, offset: int, entry: JournalEntry) -> None:
        wanted = run.steps[-1][1].step + 1 if run.steps else 1
        if entry.step < wanted:
            self._add(Kind.DOUBLE, offset, f"step {entry.step} is there already")
            if any(known.step == entry.step and known.ranges == entry.ranges for _, known in run.steps[-1000:]):
                return
        elif entry.step > wanted:
            count = entry.step - wanted
            self._add(Kind.MISSING, offset, f"steps {wanted} to {entry.step - 1} are not there", count=count)
        run.steps.append((offset, entry))

    def _add(self, kind: Kind, offset: int, detail: str, *, count: int = 1) -> None:
        self._findings.add(TRAINER_JOURNAL.name, kind, (TRAINER_JOURNAL.name, 0, offset), detail, count=count)


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
    """Compares the last run of the journal with the records of sessions and preferences, and with the versions."""

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
        """By partition, for each record the range that consumed it as the first of its id; _NEVER for none."""
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
        taken_by = np.where(first & (identifier >= 0), place, _NEVER)
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


class VersionsAudit:
    """Announcements on model-versions against the journal."""

    def __init__(self, findings: Findings, model: str) -> None:
        self._findings, self._model = findings, model
        self._announced: dict[int, tuple[int, ModelVersion]] = {}
        self._gaps = False

    def read(self, messages: Iterable[Message], codec: Codec) -> None:
        """Take in topic model-versions."""
        before = -1
        for message in messages:
            offset = message.offset() or 0
            self._gaps |= offset > before + MOST_MARKERS
            before = offset
            try:
                record: ModelVersion = codec.decode(message.value())
            except DecodeError as error:
                self._add(Kind.WRONG, offset, str(error))
                continue
            if record.model == self._model and record.status is VersionStatus.PUBLISHED:
                self.take(offset, record)

    def take(self, offset: int, record: ModelVersion) -> None:
        """Take in one announcement."""
        known = self._announced.setdefault(record.version, (offset, record))[1]
        if known is not record:
            kind = Kind.REPEATED if (known.sha256, known.offsets) == (record.sha256, record.offsets) else Kind.DOUBLE
            self._add(kind, offset, f"version {record.version} again, sha256 {record.sha256[:12]}")

    def run(self, runs: Iterable[Run], records: Mapping[Part, Consumable]) -> None:
        """Each version's offsets are what the journal's steps up to it have consumed."""
        line = self._findings.line(MODEL_VERSIONS.name)
        newest = max(self._announced, default=0)
        left = dict(self._announced)
        for run in runs:
            ranges = iter(_ranges_in_order(run))
            upcoming = next(ranges, None)
            reached: dict[Part, int] = {}
            for version, (journal_offset, entry) in sorted(run.publishes.items()):
                while upcoming is not None and upcoming[0] <= entry.step:
                    reached[upcoming[1].topic, upcoming[1].partition] = upcoming[1].next_offset
                    upcoming = next(ranges, None)
                announced = left.pop(version, None)
                line.expected += announced is not None or not (self._gaps or version in run.interrupted)
                line.found += announced is not None
                passed_over = version >= newest or version in run.interrupted
                if announced is None and not passed_over and not self._gaps:
                    detail = f"version {version} was never announced"
                    self._add(Kind.MISSING, journal_offset, detail, at=TRAINER_JOURNAL.name)
                problem = None if announced is None else self._problem(announced, entry, reached, records)
                self._findings.versions.append(_finding(entry, reached, records, problem))
        for version, (offset, record) in left.items():
            line.found += 1
            self._add(Kind.EXTRA, offset, f"version {version} of step {record.step} is not in the journal")

    def _problem(
        self,
        announced: tuple[int, ModelVersion],
        entry: JournalEntry,
        reached: Mapping[Part, int],
        records: Mapping[Part, Consumable],
    ) -> str:
        offset, record = announced
        problems = []
        if record.step != entry.step:
            problems.append(f"step {record.step} instead of {entry.step}")
        if record.sha256 != entry.weights_sha256:
            problems.append(f"sha256 {record.sha256[:12]} instead of {(entry.weights_sha256 or '')[:12]}")
        for each in record.offsets:
            part = each.topic, each.partition
            consumed = reached.get(part, _begin(records.get(part)))
            if part in records and (each.next_offset > consumed or (part in reached and each.next_offset < consumed)):
                problems.append(f"{each.topic}[{each.partition}] up to {each.next_offset} instead of {consumed}")
        named = {(each.topic, each.partition) for each in record.offsets}
        problems += [
            f"{topic}[{partition}] is not named" for topic, partition in reached if (topic, partition) not in named
        ]
        if problems:
            self._add(Kind.WRONG, offset, f"version {record.version}: {'; '.join(problems)}")
        return "; ".join(problems)

    def _add(self, kind: Kind, offset: int, detail: str, *, at: str = MODEL_VERSIONS.name) -> None:
        self._findings.add(MODEL_VERSIONS.name, kind, (at, 0, offset), detail)


_NEVER = 2**62
MOST_MARKERS = 2
"""From one record to the next, with a transaction marker between; more, and records were compacted or aborted."""


def _line(topic: str) -> str:
    return f"{topic} learned"


def _ranges_in_order(run: Run) -> Iterable[tuple[int, OffsetRange]]:
    for _, entry in run.steps:
        for each in entry.ranges:
            yield entry.step, each


def _finding(
    entry: JournalEntry, reached: Mapping[Part, int], records: Mapping[Part, Consumable], announced: str | None
) -> VersionFinding:
    """`announced`: what is wrong with the announcement, None where there is none."""
    counts = {
        topic: sum(
            int(np.searchsorted(records[part].offsets, end))
            for part, end in reached.items()
            if part[0] == topic and part in records
        )
        for topic in (SESSIONS.name, PREFERENCES.name)
    }
    counted = counts[SESSIONS.name], counts[PREFERENCES.name]
    return VersionFinding(entry.version or 0, entry.step, *counted, announced is not None, announced or "")


def _begin(consumable: Consumable | None) -> int:
    """The first record's offset: what no step has consumed cannot have been learned."""
    return int(consumable.offsets[0]) if consumable is not None and len(consumable.offsets) else _NEVER


def _consumed_at(offsets: Longs, ranges: Iterable[_Range]) -> Longs:
    """For each record the place of the first range that holds it; _NEVER where none does."""
    places = np.full(len(offsets), _NEVER, np.int64)
    for each in ranges:
        first, after = np.searchsorted(offsets, (each.of.first_offset, each.of.next_offset))
        places[first:after] = np.minimum(places[first:after], each.place)
    return places


def _stretches(offsets: Longs, chosen: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """First offset and length of each run of chosen records."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False]))))
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield int(offsets[first]), after - first
