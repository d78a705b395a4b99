"""How fast something grows: one slope over several lives of a process, with its confidence interval.

Each life has a level of its own, the slope is common (ordinary least squares with fixed effects). Looks a few seconds
apart say nearly the same, so they are first averaged over blocks, and the interval is widened by what correlation
from block to block is left: a variance times (1 + r) / (1 - r) for a first-order autocorrelation r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

BLOCK_S = 30.0
MIN_BLOCKS = 6
"""A life with fewer says nothing about a slope."""
MAX_CORRELATION = 0.95
CONFIDENCE = 0.95
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope in units an hour and the bounds of its 95 % interval; `hours` is the time that it was fitted on."""

    slope: float
    low: float
    high: float
    level: float
    """Mean of what was fitted on."""
    hours: float


def trend(lives: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Trend | None:
    """The trend of lives, each the times in seconds and the values; None where they are too short for one."""
    blocks = [_blocks(np.asarray(times_s, float), np.asarray(values, float)) for times_s, values in lives if times_s]
    blocks = [(hours, values) for hours, values in blocks if len(hours) >= MIN_BLOCKS]
    freedom = sum(len(hours) - 1 for hours, _ in blocks) - 1
    if freedom < 1:
        return None
    x = [hours - hours.mean() for hours, _ in blocks]
    y = [values - values.mean() for _, values in blocks]
    spread = sum(float(part @ part) for part in x)
    slope = sum(float(a @ b) for a, b in zip(x, y, strict=True)) / spread
    residuals = [b - slope * a for a, b in zip(x, y, strict=True)]
    squares = sum(float(part @ part) for part in residuals)
    error = np.sqrt(squares / freedom / spread * _widening(residuals, squares))
    margin = float(_student(freedom) * error)
    level = float(np.concatenate([values for _, values in blocks]).mean())
    hours = sum(float(hours[-1] - hours[0]) for hours, _ in blocks)
    return Trend(slope, slope - margin, slope + margin, level, hours)


def _blocks(times_s: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Means over blocks: hours [B], values [B]."""
    _, number, counts = np.unique(times_s // BLOCK_S, return_inverse=True, return_counts=True)
    return np.bincount(number, times_s) / counts / 3600.0, np.bincount(number, values) / counts


def _widening(residuals: Sequence[Floats], squares: float) -> float:
    """(1 + r) / (1 - r), not below 1."""
    if squares <= 0.0:
        return 1.0
    correlation = sum(float(part[1:] @ part[:-1]) for part in residuals) / squares
    correlation = min(max(correlation, 0.0), MAX_CORRELATION)
    return (1.0 + correlation) / (1.0 - correlation)


def _student(freedom: int) -> float:
    """The two-sided quantile of Student's t by its expansion around the normal one (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    return z + first / freedom + second / freedom**2
