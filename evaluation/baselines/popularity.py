"""Decayed popularity: how often items were watched long or liked, older counts halving every so often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

REBASE_HALVINGS = 256.0
"""Float64 holds 2^1023: the counts are scaled down well before."""


class DecayedPopularity:
    """Counts by row with a half-life; one addition an event, none for the decay.

    A count at time t is held as the sum of 2^((t_i - base) / half_life): the factor that would turn it into the
    decayed count is the same for all items, and so does not change their order.
    """

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._base_ms: int | None = None
        self._inflated = np.zeros(0)

    def add(self, row: int, time_ms: int) -> None:
        """Count one event of an item."""
        if self._base_ms is None:
            self._base_ms = time_ms
        halvings = (time_ms - self._base_ms) / self._half_life_ms
        if halvings > REBASE_HALVINGS:
            self._inflated *= 2.0**-halvings
            self._base_ms, halvings = time_ms, 0.0
        if row >= len(self._inflated):
            grown = np.zeros(max(64, 2 * row))
            grown[: len(self._inflated)] = self._inflated
            self._inflated = grown
        self._inflated[row] += 2.0**halvings

    def scores(self, items: int) -> npt.NDArray[np.float64]:
        """[items] decayed counts up to a common factor; a copy."""
        scores = np.zeros(items)
        known = min(items, len(self._inflated))
        scores[:known] = self._inflated[:known]
        return scores
