"""Announcements on model-versions against the journal: what each version says it has learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from confluent_kafka import Message

from audit.findings import Findings, Kind, VersionFinding
from audit.journal import Run
from audit.learned import NEVER, Consumable, Part
from schemas.codec import Codec, DecodeError
from schemas.records import JournalEntry, ModelVersion, OffsetRange, VersionStatus
from schemas.topics import MODEL_VERSIONS, PREFERENCES, SESSIONS, TRAINER_JOURNAL

MOST_MARKERS = 2
"""From one record to the next, with a transaction marker between; more, and records were compacted or aborted."""


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
    return int(consumable.offsets[0]) if consumable is not None and len(consumable.offsets) else NEVER
