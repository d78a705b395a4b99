"""What a person asks of a replay beyond the settings. Light to import, for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("items", "histories", "events")


@dataclass(frozen=True, slots=True)
class Options:
    """One replay."""

    only: tuple[str, ...] = PARTS
    data: Path | None = None
    mapping: Path | None = None
    events: int | None = None
    start: str | None = None
    shift_days: int = 0
    summary: Path | None = None
    followers: dict[str, int] = field(default_factory=dict)
    """Metrics ports, by name, of those who must not fall behind."""
