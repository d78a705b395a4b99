"""The journal: what each step consumed, written before any version that depends on it is announced.

An entry carries the epoch of the trainer that wrote it. A trainer that was thought dead and wakes up writes
with its old epoch; what it writes after a newer start is void for every reader, and it ends when it sees one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onerec.errors import CheckFailedError
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind, OffsetRange
from schemas.topics import TRAINER_JOURNAL
from trainer.intake import read_topic, vanished

PARTITION = 0
FLUSH_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Story:
    """The valid part of a journal after one step: what a resumed trainer executes again."""

    epoch: int = 0
    """The newest start; 0 where there is none."""
    start: JournalEntry | None = None
    steps: list[JournalEntry] = field(default_factory=list)
    """Steps without a gap, the first is the one after the given step."""
    environments: list[Mapping[str, str]] = field(default_factory=list)
    """Of each step, that of the trainer that made it; empty where its start lies before what was read."""
    starts: dict[int, Mapping[str, str]] = field(default_factory=dict)
    """By epoch, the environment of its trainer."""
    publishes: dict[int, JournalEntry] = field(default_factory=dict)
    """By the step whose state was published."""
    last_version: int = 0
    next_offset: int = 0


def read_story(entries: Iterable[tuple[int, JournalEntry]], *, after_step: int | None, epoch: int = 0) -> Story:
    """Fold (offset, entry) in the order of the log, leaving out what an outdated trainer wrote.

    `after_step` and `epoch` are the checkpoint's; None and 0 where there is none, and then the steps are of no
    use. From step 0 on, a new seed replaces what came before it: that one was not finished, or was given up.
    Raises CheckFailedError where a step is missing or a seed is newer than the checkpoint.
    """
    story = Story(epoch=epoch)
    for offset, entry in entries:
        story.next_offset = offset + 1
        if entry.epoch < story.epoch:
            continue
        if entry.kind is JournalKind.START:
            story.epoch, story.start = entry.epoch, entry
            story.starts[entry.epoch] = entry.environment
            if entry.ranges:
                _begin_anew(story, after_step)
        elif entry.kind is JournalKind.PUBLISH:
            story.last_version = max(story.last_version, entry.version or 0)
            story.publishes[entry.step] = entry
        elif after_step is not None and entry.step > after_step:
            _append(story.steps, entry, after_step)
            story.environments.append(story.start.environment if story.start is not None else {})
    return story


def _begin_anew(story: Story, after_step: int | None) -> None:
    if after_step:
        raise CheckFailedError(
            f"The journal has a newer seed than the checkpoint of step {after_step}: another trainer took over.",
            "Move the checkpoints away: they are of a model that is no longer trained.",
        )
    story.steps.clear()
    story.environments.clear()
    story.publishes.clear()


def _append(steps: list[JournalEntry], entry: JournalEntry, after_step: int) -> None:
    expected = steps[-1].step + 1 if steps else after_step + 1
    if entry.step != expected:
        raise CheckFailedError(
            f"The journal goes from step {expected - 1} to step {entry.step}: it is not whole.",
            "Restore topic trainer-journal, or move the checkpoints away to train a new seed.",
        )
    steps.append(entry)


def read_journal(kafka: KafkaSettings, model: str, *, start: int, timeout_s: float) -> list[tuple[int, JournalEntry]]:
    """The model's entries from offset `start` to the end as of now, with their offsets.

    Raises CheckFailedError where the journal ends before `start` or an entry is not readable.
    """
    taken = read_topic(kafka, TRAINER_JOURNAL, {PARTITION: start}, timeout_s)
    if taken.bad:
        raise CheckFailedError(
            f"The journal is not readable at offset {taken.bad[0].message.offset()}: {taken.bad[0].detail}.",
            "Nothing but trainers may write to topic trainer-journal: restore it.",
        )
    return [(received.offset, received.record) for received in taken.records if received.record.model == model]


class Journal:
    """Writes entries of one epoch. Nothing is certain before `flush` has returned."""

    def __init__(self, kafka: KafkaSettings, writer: RecordWriter, model: str, *, start: int = 0) -> None:
        """Read what is there from offset `start` on; `begin` takes over from whoever wrote it.

        The entry before `start` is read too: where the checkpoint is the last thing that its trainer did, it alone
        tells that trainer's epoch: older ones' entries are void, the next one's is greater. Raises CheckFailedError
        where it is gone.
        """
        self._kafka = kafka
        self._writer = writer
        self._model = model
        self._entries = read_journal(kafka, model, start=max(0, start - 1), timeout_s=READ_TIMEOUT_S)
        if start and [offset for offset, _ in self._entries[:1]] != [start - 1]:
            raise vanished(f"topic {TRAINER_JOURNAL.name} lacks the entry before offset {start}")
        self.epoch = self._epoch_at_start = self._entries.pop(0)[1].epoch if start else 0
        self.next_offset = self._entries[-1][0] + 1 if self._entries else start
        """After the last entry that the broker has confirmed."""
        self._foreign_from: int | None = None

    def story(self, after_step: int | None) -> Story:
        """What has been read, folded; see `read_story`."""
        return read_story(self._entries, after_step=after_step, epoch=self._epoch_at_start)

    def begin(self, step: int, environment: Mapping[str, str], ranges: Sequence[OffsetRange] = ()) -> None:
        """Write the start of a new epoch after `step`: from here on older trainers' entries are void.

        `ranges` are what the seed is made from, where this trainer makes one. What others wrote up to this
        start joins the story.
        """
        while True:
            self.epoch = 1 + max((self._epoch_at_start, *(entry.epoch for _, entry in self._entries)))
            read_to = self.next_offset
            self._write(step, JournalKind.START, environment=dict(environment), ranges=tuple(ranges))
            self._writer.flush(FLUSH_TIMEOUT_S)
            self._foreign_from = None
            fresh = read_journal(self._kafka, self._model, start=read_to, timeout_s=READ_TIMEOUT_S)
            self._entries.extend(fresh)
            if [entry.epoch for _, entry in fresh].count(self.epoch) == 1:
                return

    def step(
        self,
        step: int,
        ranges: Sequence[OffsetRange],
        *,
        seed: int,
        learning_rate: float,
        loss: Mapping[str, float],
        refused: str | None = None,
    ) -> None:
        """A step consumed `ranges`."""
        more = {"seed": seed, "learning_rate": learning_rate, "loss": dict(loss), "refused": refused}
        self._write(step, JournalKind.STEP, ranges=tuple(ranges), **more)

    def publish(self, step: int, version: int, weights_sha256: str) -> None:
        """The state after `step` is `version`."""
        self._write(step, JournalKind.PUBLISH, version=version, weights_sha256=weights_sha256)

    def flush(self) -> None:
        """Wait until the broker has everything, and make sure that it was ours to write.

        Entries of one writer lie side by side; where they do not, somebody else has written between them. Raises
        CheckFailedError where that is a newer trainer of the same model, and DependencyMissingError where the
        broker does not answer.
        """
        patience_s = max(FLUSH_TIMEOUT_S, self._kafka.broker_patience_s)
        self._writer.flush(patience_s)
        if self._foreign_from is None:
            return
        entries = read_journal(self._kafka, self._model, start=self._foreign_from, timeout_s=patience_s)
        self._foreign_from = None
        if any(entry.epoch > self.epoch for _, entry in entries):
            raise CheckFailedError(
                f"Another trainer of model {self._model} has taken over.",
                "Run one trainer a model: stop the other one, or leave it to it.",
            )

    def check(self) -> None:
        """As `flush`, for a trainer that has written nothing lately: looks whether a newer one has begun."""
        if self._foreign_from is None:
            self._foreign_from = self.next_offset
        self.flush()

    def _write(self, step: int, kind: JournalKind, **fields: Any) -> None:
        empty: dict[str, Any] = {"ranges": (), "seed": 0, "learning_rate": 0.0, "loss": {}, "environment": {}}
        entry = JournalEntry(
            model=self._model,
            step=step,
            kind=kind,
            epoch=self.epoch,
            time_ms=time.time_ns() // 1_000_000,
            **(empty | fields),
        )
        self._writer.send(TRAINER_JOURNAL, self._model.encode(), entry, on_delivery=self._delivered)

    def _delivered(self, error: object, message: Any) -> None:
        if error is not None:
            return
        if message.offset() != self.next_offset and self._foreign_from is None:
            self._foreign_from = self.next_offset
        self.next_offset = message.offset() + 1
