"""What a catalogue costs in memory, beside what it costs in time."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

from bench.decoding import ours, shapes
from onerec.catalogue import CatalogueSnapshot

SEEN = shapes.HISTORY_ITEMS
TURN_S = 0.4
"""Of batches one after the other. The first after the other side's turn finds nothing in the processor's caches, and
that costs more than ten million items do."""


class Grown(ours.Decode):
    """Side: as `Decode`, for users who do not want to see again what they have seen, as requests have it by default.

    Every code is decoded: in a small catalogue most last codes have no sibling, which the search makes use of, so that
    a large one would be compared with less work. It knows the bytes that an item of the catalogue takes, too.
    """

    def prepare(self) -> dict[str, Any]:
        """Facts with `bytes_an_item`: snapshot, trie and the engine's index; shared memory counts once."""
        facts = super().prepare()
        self._engine.often_open = 0.0
        index = self._engine._indexes.get(self._catalogue.trie, self._engine.device)
        seen = np.random.default_rng(3).integers(0, self._items, (self._batch, SEEN))
        self._exclude = [torch.from_numpy(leaves) for leaves in seen]
        self.repeat()
        facts["bytes_an_item"] = held(self._catalogue, index) / self._items
        return facts

    def repeat(self) -> dict[str, Any]:
        """Batches for TURN_S: `seconds` of one in the mean, `invalid` of the last."""
        started_s, batches = time.perf_counter(), 0
        while (passed_s := time.perf_counter() - started_s) < TURN_S:
            last = super().repeat()
            batches += 1
        return last | {"seconds": passed_s / batches}


def held(snapshot: CatalogueSnapshot, *more: object) -> int:
    """Bytes of all arrays and tensors below these, and of the strings of tags."""
    blocks: dict[int, int] = {}
    _note((snapshot, *more), blocks)
    words = {id(word): sys.getsizeof(word) for own in snapshot.tag_sets for word in (own, *own)}
    return sum(blocks.values()) + sum(words.values())


def _note(value: object, blocks: dict[int, int]) -> None:
    if isinstance(value, torch.Tensor):
        blocks[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, np.ndarray):
        blocks[value.ctypes.data] = value.nbytes
    elif isinstance(value, tuple | list):
        for one in value:
            _note(one, blocks)
    elif hasattr(value, "__slots__") or hasattr(value, "__dict__"):
        names = getattr(value, "__slots__", None) or vars(value)
        for name in names:
            _note(getattr(value, name), blocks)
