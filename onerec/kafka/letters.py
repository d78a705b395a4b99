"""Reading topic dead-letters: letters by offset, and which of them were put back into their topics."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from onerec.errors import SettingsError
from onerec.kafka import clients
from onerec.kafka.registry import codec
from onerec.kafka.watermarks import Bounds, watermarks
from onerec.settings import KafkaSettings
from onerec.state.tail import Raw, Tail
from schemas.codec import DecodeError
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.topics import DEAD_LETTERS

REPLAYED_HEADER = "replayed-letter"
"""On a record that was put back, and on the mark of it in dead-letters: the offset of the letter."""
PARTITION = 0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter with its offset on dead-letters, which names it."""

    offset: int
    record: DeadLetter


@dataclass(frozen=True, slots=True)
class Mark:
    """Says that the letter at `letter_offset` was put back; `record` is that letter, its reason in `detail`."""

    letter_offset: int
    record: DeadLetter

    def letter(self) -> Letter:
        """The letter as far as the mark knows it: where it was from and why, without its bytes."""
        return Letter(self.letter_offset, dataclasses.replace(self.record, reason=self.record.detail))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in dead-letters that is no letter."""

    offset: int
    detail: str


Entry = Letter | Mark | Unreadable


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters; what is empty or None does not restrict."""

    offsets: Collection[int] = ()
    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    services: Collection[str] = ()
    since_ms: int | None = None

    def is_everything(self) -> bool:
        """Whether it leaves nothing out."""
        return not (self.offsets or self.reasons or self.topics or self.services or self.since_ms is not None)

    def has(self, letter: Letter) -> bool:
        """Whether this letter is among them."""
        record = letter.record
        return (
            (not self.offsets or letter.offset in self.offsets)
            and (not self.reasons or record.reason in self.reasons)
            and (not self.topics or record.topic in self.topics)
            and (not self.services or record.service in self.services)
            and (self.since_ms is None or record.time_ms >= self.since_ms)
        )


def letter_bounds(kafka: KafkaSettings) -> Bounds:
    """First offset of dead-letters and its end. Raises DependencyMissingError for no broker or no topic."""
    part = (clients.topic_name(kafka, DEAD_LETTERS), PARTITION)
    return watermarks(kafka, [part], isolation_level="read_uncommitted")[part]


def entries(kafka: KafkaSettings, first: int, end: int) -> Iterator[Entry]:
    """What dead-letters holds from offset `first` to before `end`, in order, a batch in memory at a time.

    Raises DependencyMissingError where it cannot be read to the end.
    """
    part = (clients.topic_name(kafka, DEAD_LETTERS), PARTITION)
    tail = Tail(kafka, {part: first}, {part: end})
    try:
        while not tail.done():
            for raw in tail.read(POLL_S):
                if raw.offset < end:
                    yield entry_of(kafka, raw)
    finally:
        tail.close()


def letter_at(kafka: KafkaSettings, offset: int) -> Letter:
    """One letter. Raises SettingsError where there is none at this offset, DependencyMissingError."""
    low, end = letter_bounds(kafka)
    detail = f"the topic holds {low} to {end}"
    if low <= offset < end:
        for entry in entries(kafka, offset, offset + 1):
            if isinstance(entry, Letter):
                return entry
            detail = entry.detail if isinstance(entry, Unreadable) else f"it marks the replay of {entry.letter_offset}"
    raise SettingsError(f"There is no letter at offset {offset}: {detail}.", "See `onerec dead-letters list`.")


def is_replayed(kafka: KafkaSettings, letter: Letter) -> bool:
    """Whether a letter was put back; reads what stands behind it. Raises as `entries`."""
    _, end = letter_bounds(kafka)
    later = entries(kafka, letter.offset + 1, end) if letter.offset + 1 < end else iter(())
    return any(isinstance(entry, Mark) and entry.letter_offset == letter.offset for entry in later)


@dataclass(slots=True)
class Group:
    """Letters of one service, topic and reason."""

    service: str
    topic: str
    reason: str
    letters: int = 0
    replayed: int = 0
    newest_ms: int = 0
    newest: list[int] = field(default_factory=list)
    """Offsets of the newest letters, newest first."""
    detail: str = ""
    """Of the newest letter."""


@dataclass(slots=True)
class Overview:
    """What dead-letters holds."""

    groups: list[Group]
    unreadable: int


def overview(kafka: KafkaSettings, selection: Selection, examples: int) -> Overview:
    """Count the selected letters; most frequent first, each group with so many newest ones. Raises as `entries`."""
    groups: dict[tuple[str, str, str], Group] = {}
    replayed: set[int] = set()
    unreadable = 0
    for entry in entries(kafka, *letter_bounds(kafka)):
        if isinstance(entry, Unreadable):
            unreadable += 1
            continue
        if isinstance(entry, Mark):
            group = groups.get((entry.record.service, entry.record.topic, entry.record.detail))
            if group is not None and entry.letter_offset not in replayed and selection.has(entry.letter()):
                group.replayed += 1
            replayed.add(entry.letter_offset)
        elif selection.has(entry):
            _count(groups, entry, examples)
    return Overview(sorted(groups.values(), key=lambda group: -group.letters), unreadable)


def _count(groups: dict[tuple[str, str, str], Group], letter: Letter, examples: int) -> None:
    record = letter.record
    key = (record.service, record.topic, record.reason)
    group = groups.setdefault(key, Group(*key))
    group.letters += 1
    group.newest_ms = max(group.newest_ms, record.time_ms)
    group.newest = [letter.offset, *group.newest][:examples]
    group.detail = record.detail


def entry_of(kafka: KafkaSettings, raw: Raw) -> Entry:
    """What a record of dead-letters is."""
    try:
        record: DeadLetter = codec(kafka, DEAD_LETTERS).decode(raw.value)
    except DecodeError as error:
        return Unreadable(raw.offset, error.detail)
    if record.reason != Reason.REPLAYED:
        return Letter(raw.offset, record)
    of = raw.headers.get(REPLAYED_HEADER)
    if isinstance(of, bytes) and of.isdigit():
        return Mark(int(of), record)
    return Unreadable(raw.offset, "a mark of a replay that does not name its letter")
