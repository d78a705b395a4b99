"""What every bench has in common: a name, what it measures, its target, and the object it ends in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FELL = 0.9
"""A ratio below this share of the baseline's has fallen."""
_RELATIONS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Bound:
    """One part of a target: `figure` is ours, peer, ratio, share_of_limit or one of a bench's own figures."""

    figure: str
    relation: Literal[">=", "<="]
    limit: float
    limit_amx: float | None = None
    """Where the processor has AMX, whose products are so fast that attention and memory weigh more."""

    def of(self, *, amx: bool) -> float:
        """The limit for this kind of processor."""
        return self.limit_amx if amx and self.limit_amx is not None else self.limit

    def text(self, *, amx: bool) -> str:
        """As a person reads it."""
        return f"{self.figure} {self.relation} {self.of(amx=amx):g}"

    def holds(self, figures: Mapping[str, float | None], *, amx: bool) -> bool | None:
        """Whether it holds; None where the figure could not be measured."""
        value = figures.get(self.figure)
        return None if value is None else bool(_RELATIONS[self.relation](value, self.of(amx=amx)))


@dataclass(slots=True)
class Measured:
    """What a bench has found. What could not be measured is None, and `conditions["reason"]` says why."""

    ours: float | None
    peer: float | None
    ratio: float | None
    """How many times better than the peer, whatever the unit: larger is better."""
    share_of_limit: float | None = None
    """Of the rate at which the machine multiplies matrices, measured in the same turns."""
    figures: dict[str, float | None] = field(default_factory=dict)
    """What else the target speaks of, by name."""
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a bench has to work with."""

    directory: Path
    """For its files; emptied at the start."""
    threads: int
    """Of each side, where a bench does not say otherwise."""
    brief: bool = False
    """Small sizes and few repetitions: shows that a bench works, and no figure worth keeping."""

    def repeats(self, usual: int) -> int:
        """How many repetitions of each side."""
        return 2 if self.brief else usual

    def budget_s(self, usual: float) -> float:
        """How long repetitions may go on being started; there is always one of each side."""
        return 5.0 if self.brief else usual


@dataclass(frozen=True, slots=True)
class Bench:
    """One named bench. A file under bench/benches defines one or a family."""

    name: str
    what: str
    """What is measured against what, in a sentence."""
    unit: str
    """Of ours and peer."""
    bounds: tuple[Bound, ...]
    measure: Callable[[Context], Measured]

    def target(self, *, amx: bool) -> str:
        """All bounds as a person reads them."""
        return ", ".join(bound.text(amx=amx) for bound in self.bounds)

    def result(self, found: Measured, machine: Mapping[str, Any]) -> dict[str, Any]:
        """The object of bench.json. `met` is None where a bound could not be judged and none is known to be missed."""
        amx = "amx_bf16" in str(machine.get("features", ""))
        figures = {
            "ours": found.ours,
            "peer": found.peer,
            "ratio": found.ratio,
            "share_of_limit": found.share_of_limit,
            **found.figures,
        }
        held = [bound.holds(figures, amx=amx) for bound in self.bounds]
        met = False if False in held else None if None in held else True
        measured = {name: rounded(value) for name, value in found.figures.items()}
        return {
            "name": self.name,
            "ours": rounded(found.ours),
            "peer": rounded(found.peer),
            "unit": self.unit,
            "ratio": rounded(found.ratio),
            "share_of_limit": rounded(found.share_of_limit),
            "target": self.target(amx=amx),
            "met": met,
            "conditions": {"what": self.what, **measured, **found.conditions, **machine},
        }


def rounded(value: float | None) -> float | None:
    """To four digits that count: more would be noise."""
    return None if value is None else float(f"{value:.4g}")
