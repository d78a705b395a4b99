"""The trainer's journal as every reader has to take it: what an outdated trainer wrote after a newer start is void."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import Message

from audit.findings import Findings, Kind
from schemas.codec import Codec, DecodeError
from schemas.records import JournalEntry, JournalKind
from schemas.topics import TRAINER_JOURNAL

SAME = 1000
"""So many steps back an entry may be the same one again."""


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
            if any(known.step == entry.step and known.ranges == entry.ranges for _, known in run.steps[-SAME:]):
                return
        elif entry.step > wanted:
            count = entry.step - wanted
            self._add(Kind.MISSING, offset, f"steps {wanted} to {entry.step - 1} are not there", count=count)
        run.steps.append((offset, entry))

    def _add(self, kind: Kind, offset: int, detail: str, *, count: int = 1) -> None:
        self._findings.add(TRAINER_JOURNAL.name, kind, (TRAINER_JOURNAL.name, 0, offset), detail, count=count)
