"""Visits of an A/B run by user, and means over them with intervals by a bootstrap over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.ab.protocol import BOOTSTRAPS

WATCHED, EXPECTED = "watch_time_per_session_s", "expected_watch_time_per_session_s"
MEASURES = {WATCHED: "watch_ms", EXPECTED: "expected_watch_ms"}
"""What is averaged, and the column of visits that it is of."""
COUNTED = {"items_per_session": "items", "likes_per_session": "likes", "follows_per_session": "follows"}
COLUMNS = ("user", "arm", "begin_ms", "watch_ms", "expected_watch_ms", "items", "likes", "follows")
Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


def joined(parts: Sequence[Columns], chosen: Sequence[NDArray[np.bool_]]) -> Columns:
    """The chosen visits of each seed in a row; a user is a pair of seed and id."""
    pairs = list(zip(parts, chosen, strict=True))
    found = {name: np.concatenate([part[name][own] for part, own in pairs]) for name in COLUMNS}
    found["user"] = np.concatenate([part["user"][own] + (int(part["seed"]) << 40) for part, own in pairs])
    return found


@dataclass(frozen=True, slots=True)
class Users:
    """By user of an arm: visits [U] and sums over them [U], times in seconds."""

    visits: Floats
    totals: dict[str, Floats]

    @classmethod
    def of(cls, visits: Columns, arm: int) -> Users:
        """Of the visits of one arm."""
        own = visits["arm"] == arm
        _, user = np.unique(visits["user"][own], return_inverse=True)
        totals = {
            name: np.bincount(user, visits[column][own]) / (1000 if column.endswith("_ms") else 1)
            for name, column in (MEASURES | COUNTED).items()
        }
        return cls(np.bincount(user).astype(np.float64), totals)

    def mean(self, name: str) -> float:
        """Per session."""
        return float(self.totals[name].sum() / self.visits.sum())

    def bootstrap(self, name: str, random: np.random.Generator) -> Floats:
        """[BOOTSTRAPS] means of users drawn with replacement."""
        count = len(self.visits)
        drawn = np.empty(BOOTSTRAPS)
        for row in range(BOOTSTRAPS):
            chosen = random.integers(count, size=count)
            drawn[row] = self.totals[name][chosen].sum() / self.visits[chosen].sum()
        return drawn


def interval(drawn: Floats) -> list[float]:
    """95 % of the draws."""
    return [round(float(value), 5) for value in np.quantile(drawn, (0.025, 0.975))]
