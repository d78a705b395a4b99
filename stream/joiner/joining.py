"""What intake and partition ask of a join, whoever does it: Python (`plain`), or what is compiled (`native`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import Message

from stream.joiner.rows import ActionRow, ImpressionRow
from stream.joiner.work import Refusal, Work

USER_PREFIX = b"u"
HISTORY_PREFIX = b"h"
"""In the local copy, before a user's id: the state of the join, and the history as it is published."""


@dataclass(slots=True)
class Open:
    """How much of the partition's state is open, as of the last commit."""

    impressions: int = 0
    actions: int = 0
    sessions: int = 0


class Events(Protocol):
    """Values of one input in order, decoded as far as that is quick; each has a row, or is left out in the end."""

    def left(self) -> list[int]:
        """Places of the values that are left to the codec."""

    def put(self, place: int, row: ImpressionRow | ActionRow) -> None:
        """The row of a value that was left to the codec."""

    def items(self) -> set[int]:
        """What the rows are about."""

    def drop(self, items: set[int]) -> list[tuple[int, int]]:
        """Leave out the rows about these items; place and item of each."""

    def newest_ms(self) -> int | None:
        """The newest event time; None where there are no rows."""


class Joining(Protocol):
    """The join of one partition. One thread."""

    @property
    def open(self) -> Open:
        """As of the last `stored`."""

    def read(self, source: int, values: Sequence[bytes | None], most: Mapping[str, int]) -> Events:
        """Decode values of impressions or actions (`watermark.INPUTS`); see `Columns.read` for `most`."""

    def take(self, source: int, events: Any, messages: Sequence[Message]) -> None:
        """Join the rows of what its own `read` gave, which came as these messages."""

    def refuse(self, refusal: Refusal) -> None:
        """A record goes to dead-letters with the next work."""

    def advance(self, watermark_ms: int) -> None:
        """Work off what falls due, or a bearable part of it: `Join.advance`."""

    def is_behind(self) -> bool:
        """Whether `advance` has something left to do."""

    def close_idle(self) -> bool:
        """Publish sessions in the making too, or a bearable part of them; whether that was all."""

    def changed(self) -> int:
        """Of how many users something is to be written."""

    def has_changes(self) -> bool:
        """Whether there is something to write: of users, or refusals."""

    def write(self, work: Work) -> None:
        """Put what has happened since the last call into the work: its records, and what is counted."""

    def stored(self) -> None:
        """What `write` gave is committed and in the local copy: let go of users of whom only the history is left."""

    def restore(self, user_id: int, packed: bytes) -> None:
        """Put back a user whose state was stored, as of now. Raises CheckFailedError as `Point.unpack`."""
