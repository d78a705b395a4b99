"""Impressions and actions of one partition as columns: 80 to 96 bytes a record, sorted by user afterwards."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from audit.by_user import ByUser
from audit.findings import Findings, Kind
from audit.refusals import LINE, NUMBERS, Refusal
from onerec.settings import JoinerSettings
from schemas.bounds import Limits, violation
from schemas.codec import Codec, DecodeError
from schemas.reasons import Reason
from schemas.records import ActionKind
from schemas.topics import DEAD_LETTERS, IMPRESSIONS, Topic

NONE = -1
"""No value, in a column."""
EVER_MS = 2**62
"""As wall clock it makes every event time a past one: what was in the future then need not be now."""
BEGINNING_MS = -(2**62)
KIND_NUMBERS = {kind: number for number, kind in enumerate(ActionKind)}
JOINED = (Reason.LATE, Reason.ORPHAN)
"""Refused by the join itself, which works on event time."""
KNOWN_TO_THE_JOIN = (*JOINED, Reason.OUT_OF_BOUNDS)
"""A fine record that is out of bounds was one too many of its user. All other reasons are given before the join."""


class Shown(NamedTuple):
    """An impression. `before_ms` is the newest event time before it in its partition, `refused` a number or NONE."""

    offset: int
    user_id: int
    request_id: int
    item_id: int
    time_ms: int
    position: int
    model_version: int
    produced_ms: int
    before_ms: int
    refused: int


class Done(NamedTuple):
    """An action; otherwise as `Shown`."""

    offset: int
    user_id: int
    request_id: int
    item_id: int
    time_ms: int
    kind: int
    watch_ms: int
    duration_ms: int
    produced_ms: int
    before_ms: int
    refused: int

    def same(self, other: Done) -> bool:
        """Whether the records are equal."""
        return self[1:9] == other[1:9]


USER = 1


@dataclass(slots=True)
class Events:
    """The accepted records of one input of one partition."""

    columns: NDArray[np.int64]
    """[records, fields of the row]"""
    newest_ms: int
    """Newest event time among what was joined before `joined_to`; BEGINNING_MS for none."""
    newest_ever_ms: int
    """The same of all that may have been joined."""
    begin: int
    joined_to: int
    """What the joiner had certainly joined: everything before this offset."""
    maybe_to: int
    """What it may have joined: nothing from this offset on."""

    def by_user(self, row: type[Any]) -> Rows:
        """The rows of each user."""
        return Rows(self.columns, row)


class Rows:
    """The rows of each user, in order of offset, as tuples of type `row`."""

    def __init__(self, columns: NDArray[np.int64], row: type[Any]) -> None:
        self._columns, self._row = columns, row
        self._by_user = ByUser(columns[:, USER])
        self.users = self._by_user.users

    def of(self, user_id: int) -> list[Any]:
        """The rows of a user."""
        return [self._row(*values) for values in self._columns[self._by_user.rows(user_id)].tolist()]


class EventReader:
    """Reads one input of one partition and checks each refusal of a record against the record."""

    def __init__(
        self, topic: Topic, partition: int, codec: Codec, settings: JoinerSettings, findings: Findings
    ) -> None:
        self._topic, self._partition, self._codec, self._findings = topic, partition, codec, findings
        self._settings = settings
        self._limits = Limits(max_future_ms=settings.max_future_ms, max_watch_ms=settings.max_watch_ms)

    def read(
        self, messages: Iterable[Message], refused: dict[int, list[Refusal]], begin: int, joined_to: int, maybe_to: int
    ) -> Events:
        """All records; `refused` is what the joiner refused of them, and is emptied."""
        shown = self._topic is IMPRESSIONS
        line = self._findings.line(self._topic.name)
        values = array("q")
        newest = [BEGINNING_MS] * 3  # of all, of the certainly joined, of the possibly joined
        for message in messages:
            offset = message.offset() or 0
            line.expected += offset < joined_to
            letters = refused.pop(offset, None)
            record = self._record(message, offset, letters, joined_to)
            if record is None or (letters is not None and letters[0].reason not in KNOWN_TO_THE_JOIN):
                line.found += letters is not None and offset < joined_to
                continue
            reason = NONE if letters is None else NUMBERS[letters[0].reason]
            if shown:
                version = NONE if record.model_version is None else record.model_version
                more = (record.position, version, record.produced_ms)
            else:
                watch_ms = NONE if record.watch_ms is None else record.watch_ms
                duration_ms = NONE if record.duration_ms is None else record.duration_ms
                more = (KIND_NUMBERS[record.kind], watch_ms, duration_ms, record.produced_ms)  # type: ignore[assignment]
            ids = (offset, record.user_id, record.request_id, record.item_id, record.time_ms)
            values.extend((*ids, *more, newest[0], reason))
            newest[0] = max(newest[0], record.time_ms)
            if offset < joined_to:
                newest[1] = newest[0]
            if offset < maybe_to:
                newest[2] = newest[0]
        self._refused_what_is_not_there(refused, begin, joined_to)
        width = len(Shown._fields if shown else Done._fields)
        columns = np.frombuffer(values, np.int64).reshape(-1, width)
        self._findings.events += len(columns)
        return Events(columns, newest[1], newest[2], begin, joined_to, maybe_to)

    def _record(self, message: Message, offset: int, letters: list[Refusal] | None, joined_to: int) -> Any:
        """The record of a message; None where it is none, and then it must have been refused."""
        problem, record = "", None
        try:
            record = self._codec.decode(message.value())
            broken = violation(record, EVER_MS, self._limits)
            problem = "" if broken is None else f"{broken[0]}: {broken[1]}"
        except DecodeError as error:
            problem = str(error)
        if letters is not None:
            self._check_letters(message, letters, problem)
        elif problem:
            kind = Kind.MISSING if offset < joined_to else Kind.OPEN
            self._add(kind, offset, f"neither joined nor in dead-letters: {problem}")
        return None if problem else record

    def _check_letters(self, message: Message, letters: list[Refusal], problem: str) -> None:
        """The letter must hold the record, and its reason must be one that the record gives."""
        first, *others = letters
        offset = message.offset() or 0
        for other in others:
            self._letter(Kind.DOUBLE, other, offset, "was refused before")
        if not first.holds(message.value() or b""):
            self._letter(Kind.WRONG, first, offset, "holds other bytes than the record")
        if problem and first.reason in (*JOINED, Reason.UNKNOWN_ITEM):
            self._letter(Kind.WRONG, first, offset, f"says {first.reason} of a record that is {problem}")
        if not problem and first.reason in (Reason.UNDECODABLE, Reason.UNKNOWN_SCHEMA, Reason.NON_FINITE):
            self._letter(Kind.WRONG, first, offset, f"says {first.reason} of a record that is fine")
        if first.reason is Reason.UNKNOWN_ITEM and not self._settings.known_items_only:
            self._letter(Kind.WRONG, first, offset, "says that the item is unknown, but any item is taken")

    def _refused_what_is_not_there(self, left: dict[int, list[Refusal]], begin: int, joined_to: int) -> None:
        for offset, letters in left.items():
            if begin <= offset < joined_to:
                for letter in letters:
                    self._letter(Kind.EXTRA, letter, offset, "there is no such record")

    def _letter(self, kind: Kind, letter: Refusal, offset: int, what: str) -> None:
        detail = f"{self._topic.name}[{self._partition}]@{offset} {what}"
        self._findings.add(LINE, kind, (DEAD_LETTERS.name, 0, letter.letter), detail)

    def _add(self, kind: Kind, offset: int, detail: str) -> None:
        self._findings.add(self._topic.name, kind, (self._topic.name, self._partition, offset), detail)
