"""How narrow a recommender has become: what few items have of all first places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 5
NARROW = "share_of_five_most_shown"
"""Of MOST items, as results call it."""


def share_of_most(items: NDArray[np.int64] | NDArray[np.float64], most: int = MOST) -> float:
    """The share that the `most` most frequent of `items` [N] have among them; 0 of none."""
    counts = np.sort(np.unique(items, return_counts=True)[1])
    return float(counts[-most:].sum() / max(1, counts.sum()))
