"""What the search needs to know of a catalogue besides its trie, made once a snapshot."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from onerec.model.trie import Trie


class CatalogueIndex(NamedTuple):
    """Paths of all leaves through the trie, and how many leaves lie below each node."""

    trie: Trie
    root_codes: Tensor  # int64 [C0]: the codes of level 0, whose nodes are 0..C0-1
    nodes: Tensor  # int64 [N, L]: the node that the path to a leaf reaches AFTER each level; the leaf at the last
    ranks: Tensor  # int64 [N, L]: which of its parent's children that node is
    counts: tuple[Tensor, ...]  # L times int32 [nodes after the level]: leaves below; ones at the last level
    fewest: tuple[int, ...]  # L times the smallest of counts

    @classmethod
    def of(cls, trie: Trie, device: torch.device) -> Self:
        """Build for a trie, moving it to `device` where it is elsewhere."""
        if trie.codes.device != device:
            trie = trie.to(device)
        leaves = torch.arange(len(trie), device=device)
        before, ranks = trie.path_targets(leaves)
        nodes = torch.cat([before[:, 1:], leaves.unsqueeze(1)], dim=1)
        counts = tuple(torch.bincount(nodes[:, level]).int() for level in range(trie.levels))
        root = trie.children(0, leaves.new_zeros(1))
        return cls(trie, root.codes[0], nodes, ranks, counts, tuple(int(count.min()) for count in counts))


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
            if of is trie and index.nodes.device == device:
                return index
        index = CatalogueIndex.of(trie, device)
        self._made = [*self._made[1 - self.KEPT :], (trie, index)]
        return index
