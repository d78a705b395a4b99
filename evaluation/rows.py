"""Dense rows for item ids, given out as items are first met, and the choice of the best rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]


class ItemRows:
    """Item id to row and back; rows count up from 0."""

    def __init__(self) -> None:
        self._row_of: dict[int, int] = {}
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, item_id: int) -> int:
        """The item's row; a new one where it is met for the first time."""
        found = self._row_of.setdefault(item_id, len(self._ids))
        if found == len(self._ids):
            self._ids.append(item_id)
        return found

    def rows(self, item_ids: Iterable[int]) -> Rows:
        """The rows of several items."""
        return np.fromiter((self.row(item_id) for item_id in item_ids), dtype=np.int64)

    def ids(self, rows: Iterable[int]) -> list[int]:
        """The items of rows."""
        return [self._ids[row] for row in rows]


def best(scores: Scores, k: int, excluded: Rows) -> Rows:
    """The k rows with the highest scores above 0, best first, without the excluded; ties by row.

    `scores` [N] is changed where rows are excluded.
    """
    scores[excluded] = 0
    least = np.partition(scores, -k)[-k] if len(scores) > k else 0
    found = np.flatnonzero((scores >= least) & (scores > 0))
    return found[np.lexsort((found, -scores[found]))][:k]
