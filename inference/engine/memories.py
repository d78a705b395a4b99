"""Encoded histories, kept for users who come back before their history has changed."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from onerec.model.batches import HistoryBatch


class Encoded(NamedTuple):
    """What the decoder attends of one request."""

    length: int
    """Positions: the start token and the history's."""
    states: Tensor
    """Encoder states [length, d], or keys and values as the kernels pack them."""


class MemoryCache:
    """Encoded histories by what is in them, the least recently used leave first.

    Belongs to one version of the weights: an engine has its own, and it goes with the engine. A history that has
    changed, by a new exposure or by new codes of its items, has other content and is not found. One thread.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self.size_bytes = limit_bytes, 0
        self._kept: OrderedDict[bytes, Encoded] = OrderedDict()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Encoded | None:
        """What was kept under this key, if it still is."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found

    def take_counts(self) -> tuple[int, int]:
        """Hits and misses since the last call."""
        counts = self.hits, self.misses
        self.hits = self.misses = 0
        return counts

    def put(self, key: bytes, encoded: Encoded) -> None:
        """Keep it, if it is not larger than all that may be kept."""
        size = encoded.states.nbytes + len(key)
        if size > self._limit or key in self._kept:
            return
        self._kept[key] = encoded
        self.size_bytes += size
        while self.size_bytes > self._limit:
            left, old = self._kept.popitem(last=False)
            self.size_bytes -= old.states.nbytes + len(left)


def content_keys(history: HistoryBatch) -> list[bytes]:
    """Equal for two requests exactly where the encoder sees the same: codes and labels of what is not padding."""
    marked = torch.cat([history.codes, history.labels.unsqueeze(-1)], dim=-1).to(torch.int32).cpu()
    lengths = history.mask.sum(1).tolist()
    return [row[:length].numpy().tobytes() for row, length in zip(marked, lengths, strict=True)]
