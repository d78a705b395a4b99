"""The baselines that see the same stream as the live system: decayed popularity and running co-occurrence.

All of them rank the full catalogue without the items that the user has already been shown.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from evaluation.baselines.cooccurrence import Cooccurrence
from evaluation.baselines.popularity import DecayedPopularity
from evaluation.ranking import TOP
from evaluation.rows import ItemRows, Rows, best
from onerec.settings import EvaluationSettings

POPULARITY, COOCCURRENCE, COMBINED = "popularity", "cooccurrence", "cooccurrence_popularity"
SYSTEMS = (POPULARITY, COOCCURRENCE, COMBINED)
"""COMBINED is co-occurrence times the root of popularity: the strongest baseline known for this log."""


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

    def ranked(self, user_id: int) -> dict[str, list[int]]:
        """Each baseline's best items for the user, at most TOP."""
        shown = self._shown.get(user_id, [])
        seen, items = np.array(shown, dtype=np.int64), len(self._items)
        popularity = self._popularity.scores(items)
        pairs = self._pairs.scores(self._recent(shown), items)
        combined = pairs * np.sqrt(popularity)
        scores = ((POPULARITY, popularity), (COOCCURRENCE, pairs), (COMBINED, combined))
        return {name: self._items.ids(best(values, TOP, seen).tolist()) for name, values in scores}

    def _recent(self, shown: list[int]) -> Rows:
        return np.array(shown[-self._settings.cooccurrence_last :], dtype=np.int64)
