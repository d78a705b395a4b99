"""How cost grows with size: a fixed part and a power of the size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    """Exponents of cost against size."""

    mean: float
    """Slope of the whole curve in logarithms."""
    last: float
    """Slope of its upper half, where fixed costs weigh least: what growth comes to."""


def fit(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Least squares in logarithms. Raises ValueError for fewer than two sizes or what has no logarithm."""
    if len(sizes) != len(costs) or len(sizes) < 2:
        raise ValueError(f"{len(sizes)} sizes and {len(costs)} costs are no curve.")
    if min(*sizes, *costs) <= 0:
        raise ValueError("Sizes and costs must be above 0.")
    x, y = np.log(np.asarray(sizes)), np.log(np.asarray(costs))
    half = max(2, (len(x) + 1) // 2)
    return Fit(_slope(x, y), _slope(x[-half:], y[-half:]))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float((centred * (y - y.mean())).sum() / (centred**2).sum())
