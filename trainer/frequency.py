"""How often each item was shown lately, and what an exposure of it weighs in the next-token loss for that.

A recommender that learns from what it showed itself learns its own choices: what is shown is learned, and shown more.
The share of an item among all exposures is the propensity with which it was shown to anybody; to weigh an exposure by
its inverse (inverse propensity scoring, Schnabel et al., ICML 2016; of item frequencies in a stream, Yi et al., RecSys
2019) leaves what users made of the item. The shares are of the stream that the trainer reads, whoever showed it, so a
step stays a function of state and input.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTED = 0.5
"""A decayed count from which an item is one of those shown lately: one exposure, a half-life ago."""
RESCALED_AT = 32.0
"""Half-lives after which counts are scaled down; those that vanish then are forgotten."""


class ExposureFrequency:
    """Exposures of each item, those of one half-life ago counting half; deterministic in the order of the stream."""

    def __init__(self, half_life: float) -> None:
        """`half_life` in exposures of all items together."""
        self.half_life = half_life
        self._items: Longs = np.empty(0, np.int64)  # ascending
        self._counts: Floats = np.empty(0)  # in units of an exposure at age 0
        self._age = 0.0  # half-lives since then

    def add(self, items: Longs) -> None:
        """Count exposures [E] of items, all of one age."""
        if not len(items):
            return
        self._age += len(items) / self.half_life
        if self._age >= RESCALED_AT:
            self._rescale()
        new, counts = np.unique(items, return_counts=True)
        merged = np.union1d(self._items, new)
        if len(merged) > len(self._items):
            kept = np.zeros(len(merged))
            kept[np.searchsorted(merged, self._items)] = self._counts
            self._items, self._counts = merged, kept
        self._counts[np.searchsorted(self._items, new)] += counts * 2.0**self._age

    def times_usual(self, items: Longs) -> Floats:
        """How many times as often as a shown item on average each of `items` [E] was shown lately; 0 where never."""
        if not len(self._items):
            return np.zeros(len(items))
        shown = np.count_nonzero(self._counts >= COUNTED * 2.0**self._age)
        at = np.minimum(np.searchsorted(self._items, items), len(self._items) - 1)
        counts: Floats = np.where(self._items[at] == items, self._counts[at], 0.0)
        times: Floats = counts * (max(1, shown) / self._counts.sum())
        return times

    def weights(self, items: Longs, power: float) -> NDArray[np.float32]:
        """What exposures [E] of items weigh: 1 up to the usual frequency, and times_usual ** -power above it.

        With power 1 all items that are shown more often than usual weigh the same together, whatever their share.
        """
        weights: NDArray[np.float32] = (np.maximum(1.0, self.times_usual(items)) ** -power).astype(np.float32)
        return weights

    def tensors(self) -> dict[str, Tensor]:
        """All that there is to keep."""
        return {
            "items": torch.from_numpy(self._items),
            "counts": torch.from_numpy(self._counts),
            "age": torch.tensor(self._age, dtype=torch.float64),
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned. Raises KeyError where something is missing."""
        self._items, self._counts = (tensors[name].clone().numpy() for name in ("items", "counts"))
        self._age = float(tensors["age"])

    def _rescale(self) -> None:
        counts = self._counts * 2.0**-self._age
        there = counts >= 2.0**-RESCALED_AT
        self._items, self._counts, self._age = self._items[there], counts[there], 0.0
