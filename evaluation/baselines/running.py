"""The baselines that see the same stream as the live system: decayed popularity and running co-occurrence.

All of them rank the full catalogue without the items that the user has already been shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from evaluation.baselines.cooccurrence import Cooccurrence
from evaluation.baselines.popularity import DecayedPopularity
from evaluation.ranking import TOP
from evaluation.rows import ItemRows, Rows, Scores, best
from onerec.settings import EvaluationSettings

POPULARITY, COOCCURRENCE, COMBINED = "popularity", "cooccurrence", "cooccurrence_popularity"
SYSTEMS = (POPULARITY, COOCCURRENCE, COMBINED)
"""COMBINED is co-occurrence times the root of popularity: the strongest baseline known for this log."""


def power_name(power: float) -> str:
    """The name of co-occurrence times popularity to a power."""
    return f"{COOCCURRENCE} x {POPULARITY}^{power:g}"


class Baselines:
    """Learns exposure by exposure, and ranks for a user as of what it has learned so far."""

    def __init__(self, settings: EvaluationSettings, items: int = 1024) -> None:
        """`items`: how many to make room for at once; more find room as they come."""
        self._settings = settings
        self._items = ItemRows()
        self._popularity = DecayedPopularity(settings.popularity_half_life_ms)
        self._pairs = Cooccurrence(items)
        self._shown: dict[int, list[int]] = {}

    def add_history(self, user_id: int, item_ids: Iterable[int]) -> None:
        """What a user was shown before the stream, oldest first."""
        rows = self._items.rows(item_ids)
        self._shown[user_id] = rows.tolist()
        self._pairs.add_history(rows)

    def exposures_of(self, user_id: int) -> int:
        """How many exposures of the user are known."""
        return len(self._shown.get(user_id, ()))

    def learn(self, user_id: int, item_id: int, time_ms: int, *, positive: bool) -> None:
        """The user was shown the item; `positive` says whether it was watched long or liked."""
        row = self._items.row(item_id)
        shown = self._shown.setdefault(user_id, [])
        self._pairs.add(row, self._recent(shown), self._settings.cooccurrence_weight)
        if positive:
            self._popularity.add(row, time_ms)
        shown.append(row)

    def ranked(self, user_id: int, powers: Sequence[float] = ()) -> dict[str, list[int]]:
        """Each baseline's best items for the user, at most TOP; and by its name each power of popularity asked for."""
        popularity, pairs = self.scores(user_id)
        seen = np.array(self._shown.get(user_id, []), dtype=np.int64)
        scores = {POPULARITY: popularity, COOCCURRENCE: pairs, COMBINED: pairs * np.sqrt(popularity)}
        scores |= {power_name(power): pairs * popularity**power for power in powers}
        return {name: self._items.ids(best(values, TOP, seen).tolist()) for name, values in scores.items()}

    def scores(self, user_id: int) -> tuple[Scores, Scores]:
        """Popularity and the user's co-occurrence [rows], up to a factor; what the user has seen is not left out."""
        items = len(self._items)
        recent = self._recent(self._shown.get(user_id, []))
        return self._popularity.scores(items), self._pairs.scores(recent, items)

    def item_ids(self, first: int = 0) -> list[int]:
        """The items of the rows from `first` on."""
        return self._items.ids(range(first, len(self._items)))

    def _recent(self, shown: list[int]) -> Rows:
        return np.array(shown[-self._settings.cooccurrence_last :], dtype=np.int64)
