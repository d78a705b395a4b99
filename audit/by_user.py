"""Rows of a table grouped by user without moving them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]


class ByUser:
    """Which rows are a user's, in their order."""

    def __init__(self, users: Longs) -> None:
        """`users` [rows]: whose each row is."""
        self._order = np.argsort(users, kind="stable")
        found, counts = np.unique(users, return_counts=True)
        ends = np.cumsum(counts)
        spans = zip((ends - counts).tolist(), ends.tolist(), strict=True)
        self._spans = dict(zip(found.tolist(), spans, strict=True))

    @property
    def users(self) -> set[int]:
        """All users."""
        return set(self._spans)

    def rows(self, user_id: int) -> Longs:
        """The rows of a user; none for an unknown one."""
        start, end = self._spans.get(user_id, (0, 0))
        return self._order[start:end]
