"""Collects scored visits and sums them up: means, paired differences with standard errors, by history, over time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LIVE = "live"
BUCKETS = ((0, 2), (3, 9), (10, 24), (25, 49), (50, None))
"""Earlier exposures of the user, both ends included."""
SERIES_POINTS = 200


@dataclass(frozen=True, slots=True)
class Score:
    """What one system scored on one visit."""

    hit: float
    ndcg: float


class Scoreboard:
    """Scored visits as columns: 9 bytes a visit and system."""

    def __init__(self, systems: tuple[str, ...], min_history: int) -> None:
        self.systems = systems
        self._min_history = min_history
        self._times_ms = array("q")
        self._earlier = array("q")
        self._hits = {system: array("f") for system in systems}
        self._ndcgs = {system: array("f") for system in systems}

    def __len__(self) -> int:
        return len(self._times_ms)

    def add(self, time_ms: int, earlier: int, scores: Mapping[str, Score]) -> None:
        """A visit that began at `time_ms`, of a user with so many earlier exposures; a system may lack."""
        self._times_ms.append(time_ms)
        self._earlier.append(earlier)
        for system in self.systems:
            score = scores.get(system)
            self._hits[system].append(math.nan if score is None else score.hit)
            self._ndcgs[system].append(math.nan if score is None else score.ndcg)

    def summary(self) -> dict[str, Any]:
        """The headline, flat, and the tables below it.

        The headline is of visits of users with enough history that every system answered; a system that never
        answered is left out and has null.
        """
        table = _Table(self._hits, self._ndcgs, np.array(self._earlier), np.array(self._times_ms))
        answered = [system for system in self.systems if table.answers(system).any()]
        everyone = np.logical_and.reduce([table.answers(system) for system in answered] or [np.zeros(0, dtype=bool)])
        chosen = table.rows(everyone & (table.earlier >= self._min_history)) if answered else table
        return {
            "visits": len(chosen),
            "visits_with_a_positive": len(self),
            **self._headline(chosen, answered),
            "paired": {name: chosen.paired(LIVE, name) for name in answered if name != LIVE and LIVE in answered},
            "by_history": table.rows(everyone).by_history(answered) if answered else [],
            "series": chosen.series(answered),
        }

    def rates(self) -> dict[str, Score]:
        """Means of each system over the visits that it answered: cheap, for the live view."""
        table = _Table(self._hits, self._ndcgs, np.array(self._earlier), np.array(self._times_ms))
        with_history = table.earlier >= self._min_history
        rows = {system: table.rows(with_history & table.answers(system)) for system in self.systems}
        return {system: Score(*found.means(system)) for system, found in rows.items() if len(found)}

    def _headline(self, chosen: _Table, answered: list[str]) -> dict[str, float | None]:
        headline: dict[str, float | None] = {}
        for system in self.systems:
            prefix = "" if system == LIVE else f"{system}_"
            known = system in answered and len(chosen) > 0
            means = chosen.means(system) if known else (None, None)
            headline[f"{prefix}hit_rate_at_10"], headline[f"{prefix}ndcg_at_10"] = means
        return headline


Column = npt.NDArray[np.float64]


class _Table:
    """The columns as arrays [V]."""

    def __init__(
        self, hits: Mapping[str, Any], ndcgs: Mapping[str, Any], earlier: npt.NDArray[Any], times_ms: npt.NDArray[Any]
    ) -> None:
        self.hits = {system: np.asarray(column, dtype=np.float64) for system, column in hits.items()}
        self.ndcgs = {system: np.asarray(column, dtype=np.float64) for system, column in ndcgs.items()}
        self.earlier = earlier
        self.times_ms = times_ms

    def __len__(self) -> int:
        return len(self.earlier)

    def answers(self, system: str) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.hits[system])

    def rows(self, chosen: npt.NDArray[np.bool_]) -> _Table:
        hits = {system: column[chosen] for system, column in self.hits.items()}
        ndcgs = {system: column[chosen] for system, column in self.ndcgs.items()}
        return _Table(hits, ndcgs, self.earlier[chosen], self.times_ms[chosen])

    def means(self, system: str) -> tuple[float, float]:
        return round(float(self.hits[system].mean()), 5), round(float(self.ndcgs[system].mean()), 5)

    def paired(self, one: str, other: str) -> dict[str, float]:
        """Mean difference of one minus other on the same visits, and its standard error."""
        found: dict[str, float] = {}
        for name, columns in (("hit_rate", self.hits), ("ndcg", self.ndcgs)):
            differences = columns[one] - columns[other]
            if len(differences) < 2:
                continue
            found[name] = round(float(differences.mean()), 5)
            found[f"{name}_standard_error"] = round(float(differences.std(ddof=1) / math.sqrt(len(differences))), 5)
        return found

    def by_history(self, systems: list[str]) -> list[dict[str, Any]]:
        found = []
        for low, high in BUCKETS:
            rows = self.rows((self.earlier >= low) & (self.earlier <= (high or np.iinfo(np.int64).max)))
            name = f"{low}+" if high is None else f"{low}-{high}"
            rates = {system: rows.means(system)[0] for system in systems} if len(rows) else {}
            found.append({"earlier_exposures": name, "visits": len(rows), "hit_rate_at_10": rates})
        return found

    def series(self, systems: list[str]) -> list[dict[str, Any]]:
        """Hit rates of all visits up to a moment, at evenly spaced moments: a window that grows."""
        if not len(self):
            return []
        order = np.argsort(self.times_ms, kind="stable")
        counts = np.arange(1, len(order) + 1)
        growing = {system: np.cumsum(self.hits[system][order]) / counts for system in systems}
        ends = np.unique(np.linspace(0, len(order) - 1, min(SERIES_POINTS, len(order))).astype(np.int64))
        return [
            {
                "time_ms": int(self.times_ms[order[end]]),
                "visits": int(end) + 1,
                "hit_rate_at_10": {system: round(float(column[end]), 5) for system, column in growing.items()},
            }
            for end in ends.tolist()
        ]
