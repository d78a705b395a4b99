"""The catalogue's trie on every rank: only what has changed of the semantic ids travels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.catalogue import CatalogueSnapshot
from onerec.model.trie import Trie

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NewCodes:
    """Semantic ids `codes` [R, L] at `rows` [R] of a catalogue of `count` items; the others are as they were."""

    count: int
    rows: Codes
    codes: Codes


class SharedTrie:
    """On rank 0 tells what is new in a snapshot; on every rank builds the trie from what is told."""

    def __init__(self, code_count: int, levels: int, device: torch.device) -> None:
        """`code_count` is K."""
        self._code_count, self._device = code_count, device
        self._codes: Codes = np.empty((0, levels), np.int64)
        self._told: CatalogueSnapshot | None = None
        self._trie: Trie | None = None

    def changes(self, snapshot: CatalogueSnapshot) -> NewCodes | None:
        """What `take` needs to come to this snapshot; None for nothing. The snapshot is not older than the last."""
        if snapshot is self._told:
            return None
        self._told = snapshot
        known = len(self._codes)
        moved = np.flatnonzero((snapshot.codes[:known] != self._codes).any(1))
        rows = np.concatenate([moved, np.arange(known, len(snapshot))])
        return NewCodes(len(snapshot), rows, snapshot.codes_of(rows))

    def take(self, changes: NewCodes | None) -> Trie:
        """The trie after the changes, on this rank's device."""
        if changes is not None:
            codes = np.empty((changes.count, self._codes.shape[1]), np.int64)
            codes[: len(self._codes)] = self._codes
            codes[changes.rows] = changes.codes
            self._codes = codes
            self._trie = Trie.build(torch.from_numpy(codes), self._code_count).to(self._device)
        assert self._trie is not None, "the first snapshot is all new"
        return self._trie
