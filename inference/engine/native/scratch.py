"""Memory that one batch leaves for the next: fresh memory comes page by page, at a cost that a wide search feels."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor


class Scratch:
    """One block, for whoever asks first; others get blocks of their own. Threads may ask side by side."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []

    def take(self, size: int, owner: object) -> Tensor:
        """Memory of `size` bytes with any content, uint8, until `owner` is gone."""
        try:
            block = self._spare.pop()
        except IndexError:  # the first, or another batch has it
            block = torch.empty(0, dtype=torch.uint8)
        if len(block) < size:
            block = torch.empty(size, dtype=torch.uint8)
        weakref.finalize(owner, self._give_back, block).atexit = False
        return block[:size]

    def _give_back(self, block: Tensor) -> None:
        self._spare = [max((*self._spare, block), key=len)]
