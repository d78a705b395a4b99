"""What an audit finds: counts by line and kind, with the first places of each, and what each version has learned."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Kinds of finding. The first four fail an audit; the others say why a difference is none."""

    MISSING = "missing"
    EXTRA = "extra"
    DOUBLE = "double"
    WRONG = "wrong"
    OPEN = "open"
    REPEATED = "repeated"


FAILURES = (Kind.MISSING, Kind.EXTRA, Kind.DOUBLE, Kind.WRONG)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found: the topic's name without the prefix, partition and offset."""

    line: str
    kind: Kind
    topic: str
    partition: int
    offset: int
    detail: str

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}: {self.detail}"


@dataclass(slots=True)
class Line:
    """One line of the table: how much there must be, how much there is, and how often each kind was found."""

    expected: int = 0
    found: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class VersionFinding:
    """What a version has learned from, by the journal."""

    version: int
    step: int
    sessions: int
    pairs: int
    announced: bool
    problem: str
    """Empty where announcement and journal agree."""


@dataclass(slots=True)
class Findings:
    """The outcome of an audit."""

    first: int = 5
    """Places kept of each line and kind."""
    lines: dict[str, Line] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    versions: list[VersionFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    events: int = 0
    seconds: float = 0.0

    def line(self, name: str) -> Line:
        """The line of this name; a new one where it is the first time."""
        return self.lines.setdefault(name, Line())

    def add(self, line: str, kind: Kind, at: tuple[str, int, int], detail: str, *, count: int = 1) -> None:
        """Note a finding that stands for `count` records; `at`: topic without the prefix, partition and offset."""
        counts = self.line(line).counts
        kept = sum(place.line == line and place.kind is kind for place in self.places) if counts[kind] else 0
        counts[kind] += count
        if kept < self.first and kind is not Kind.OPEN:
            self.places.append(Place(line, kind, *at, detail))

    def total(self, kind: Kind) -> int:
        """How often a kind was found, over all lines."""
        return sum(line.counts[kind] for line in self.lines.values())

    @property
    def lost(self) -> int:
        """Records that should be there, or should have been used, and are not."""
        return self.total(Kind.MISSING)

    @property
    def duplicated(self) -> int:
        """Records that are there, or were used, more than once."""
        return self.total(Kind.DOUBLE)

    @property
    def wrong(self) -> int:
        """Records that differ from what they must be, or that nothing accounts for."""
        return self.total(Kind.WRONG) + self.total(Kind.EXTRA)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, double or wrong."""
        return not any(self.total(kind) for kind in FAILURES)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "clean": self.clean,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "wrong": self.wrong,
            "lines": {
                name: {"expected": line.expected, "found": line.found}
                | {kind.value: line.counts[kind] for kind in Kind}
                for name, line in self.lines.items()
            },
            "places": [asdict(place) for place in self.places],
            "versions": [asdict(version) for version in self.versions],
            "notes": self.notes,
            "events": self.events,
            "seconds": round(self.seconds, 3),
        }
