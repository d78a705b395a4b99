"""What the search needs to know of a catalogue besides its trie, made once a snapshot."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from onerec.model.trie import Trie


class CatalogueIndex(NamedTuple):
    """How many leaves lie below each node; a level of the trie with few nodes but the last takes next to nothing."""

    trie: Trie
    root_codes: Tensor  # int64 [C0]: the codes of level 0, whose nodes are 0..C0-1
    bounds: tuple[Tensor, ...]  # L - 1 times integers [nodes after the level + 1]: Trie.leaf_bounds
    fewest: tuple[int, ...]  # L times the smallest number of leaves below a node after the level

    @classmethod
    def of(cls, trie: Trie, device: torch.device) -> Self:
        """Build for a trie, moving it to `device` where it is elsewhere."""
        if trie.device != device:
            trie = trie.to(device)
        bounds = tuple(trie.leaf_bounds(level) for level in range(trie.levels - 1))
        root = trie.children(0, torch.zeros(1, dtype=torch.int64, device=device))
        fewest = (*(int((each[1:] - each[:-1]).min()) for each in bounds), 1)
        return cls(trie, root.codes[0], bounds, fewest)

    def leaves_below(self, level: int, nodes: Tensor) -> Tensor:
        """How many leaves lie below `nodes` int64 [...], children at `level`: int32 [...]."""
        if level == self.trie.levels - 1:
            return torch.ones_like(nodes, dtype=torch.int32)
        bounds = self.bounds[level]
        return (bounds[nodes + 1] - bounds[nodes]).int()


class IndexCache:
    """Indexes of the newest snapshots, shared by the engines of successive model versions.

    A thread that follows the catalogue may make the index of a snapshot before the serving thread asks for it.
    """

    KEPT = 2
    """The snapshot being served and the one that is made beside it."""

    def __init__(self) -> None:
        self._made: list[tuple[Trie, CatalogueIndex]] = []

    def get(self, trie: Trie, device: torch.device) -> CatalogueIndex:
        """The index of `trie` on `device`, built where it is not among those kept."""
        for of, index in self._made:
            if of is trie and index.trie.device == device:
                return index
        index = CatalogueIndex.of(trie, device)
        self._made = [*self._made[1 - self.KEPT :], (trie, index)]
        return index
