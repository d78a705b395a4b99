"""What one transaction writes for one partition."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from onerec.state.store import LocalStore
from schemas.reasons import Reason
from stream.joiner.exposure import Came

Record = tuple[bytes | None, bytes | None, int]
"""Key, value and event time in ms (0 for now) of one record to write. Plain tuples: there are very many."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record for dead-letters."""

    source: str
    """impressions or actions."""
    came: Came
    reason: Reason
    detail: str


@dataclass(slots=True)
class Tally:
    """What happened, for the metrics."""

    events: int = 0
    late_impressions: int = 0
    duplicates: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    """Sessions by what closed them."""
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class Work:
    """What one transaction writes for one partition."""

    partition: int
    next_offsets: tuple[int, int]
    store: LocalStore
    tally: Tally = field(default_factory=Tally)
    changelog: list[Record] = field(default_factory=list)
    histories: list[Record] = field(default_factory=list)
    sessions: list[Record] = field(default_factory=list)
    dead_letters: list[Record] = field(default_factory=list)
    local: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def change(self, key: bytes, local_key: bytes, value: bytes | None) -> None:
        """A change of state, for the changelog and the local copy; None deletes."""
        self.changelog.append((key, value, 0))
        self.local.append((local_key, value))
