"""The catalogue as a trie of semantic ids: which codes may follow a prefix.

Immutable CSR tensors, built by sorting: the edges of level l are sorted by (parent, code), and an edge's index is
the id of the node it leads to. Rebuilding is how items are added.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Children(NamedTuple):
    """The children of R nodes, padded to the widest branch C of their level."""

    codes: Tensor  # int64 [R, C]
    nodes: Tensor  # int64 [R, C]: nodes of the next level, or leaves at the last level
    legal: Tensor  # bool [R, C]: False is padding, whose code and node are valid indices but mean nothing


class Trie:
    """Prefix tree over N semantic ids of L codes below K. Root is node 0 of level 0; leaf i is row i of `codes`."""

    __slots__ = ("_edge_codes", "_leaf_edges", "_leaf_of_edge", "_starts", "branches", "codes")

    def __init__(
        self, codes: Tensor, starts: list[Tensor], edge_codes: list[Tensor], leaf_edges: Tensor, order: Tensor
    ) -> None:
        self.codes = codes  # int64 [N, L]
        self._starts = starts  # by level: int64 [nodes + 1], first edge of a node
        self._edge_codes = edge_codes  # by level: int64 [edges]
        self._leaf_edges = leaf_edges  # int64 [N, L]: the edge that a leaf's path takes at each level
        self._leaf_of_edge = order  # int64 [N]: leaf of an edge of the last level
        self.branches = [int((s[1:] - s[:-1]).max()) if len(s) > 1 else 0 for s in starts]  # C by level

    @classmethod
    def build(cls, codes: Tensor, code_count: int) -> Self:
        """Build from `codes` int64 [N, L]; `code_count` is K.

        Raises ValueError for an empty catalogue, codes outside 0..K-1, ids that two rows share, or K**L beyond
        63 bits.
        """
        count, levels = codes.shape
        if count == 0:
            raise ValueError("A trie needs at least one item.")
        if code_count**levels >= 2**63:
            raise ValueError(f"K={code_count} with L={levels} does not fit 63 bits.")
        if int(codes.min()) < 0 or int(codes.max()) >= code_count:
            raise ValueError(f"Codes must be in 0..{code_count - 1}.")
        keys = torch.zeros(count, dtype=torch.int64, device=codes.device)
        for level in range(levels):
            keys = keys * code_count + codes[:, level]
        keys, order = torch.sort(keys)
        if bool((keys[1:] == keys[:-1]).any()):
            raise ValueError("Two items share a semantic id.")
        return cls(codes, *_edges(keys, order, levels, code_count), order)

    def __len__(self) -> int:
        return self.codes.shape[0]

    @property
    def levels(self) -> int:
        """L: codes of a semantic id."""
        return self.codes.shape[1]

    def children(self, level: int, nodes: Tensor) -> Children:
        """Children of `nodes` int64 [R], which are nodes of `level`; C is the widest branch of that level."""
        starts = self._starts[level]
        first = starts[nodes].unsqueeze(1)
        width = starts[nodes + 1].unsqueeze(1) - first
        step = torch.arange(self.branches[level], device=nodes.device)
        legal = step < width
        edges = first + torch.minimum(step, width - 1)
        codes = self._edge_codes[level][edges]
        return Children(codes, self._leaf_of_edge[edges] if level == self.levels - 1 else edges, legal)

    def path_targets(self, leaves: Tensor) -> tuple[Tensor, Tensor]:
        """Where the path to each leaf passes: for `leaves` int64 [...] the pair (nodes, rank), int64 [..., L].

        nodes[..., l] is the node before level l, rank[..., l] the index of the right one among its children.
        """
        edges = self._leaf_edges[leaves]
        nodes = torch.zeros_like(edges)
        nodes[..., 1:] = edges[..., :-1]
        first = torch.stack([self._starts[level][nodes[..., level]] for level in range(self.levels)], dim=-1)
        return nodes, edges - first

    def to(self, device: torch.device | str) -> Trie:
        """Copy to a device."""
        return Trie(
            self.codes.to(device),
            [t.to(device) for t in self._starts],
            [t.to(device) for t in self._edge_codes],
            self._leaf_edges.to(device),
            self._leaf_of_edge.to(device),
        )


def _edges(keys: Tensor, order: Tensor, levels: int, code_count: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """CSR of every level from the sorted keys: (starts, edge codes, leaf edges)."""
    starts, edge_codes = [], []
    leaf_edges = torch.empty(len(keys), levels, dtype=torch.int64, device=keys.device)
    parents = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)  # [N] node before this level, sorted order
    for level in range(levels):
        prefix = keys.div(code_count ** (levels - 1 - level), rounding_mode="floor")
        unique, edge_of_key = torch.unique_consecutive(prefix, return_inverse=True)
        first_key = torch.searchsorted(prefix, unique)
        parent_of_edge = parents[first_key]
        node_count = int(parents[-1]) + 1
        starts.append(torch.searchsorted(parent_of_edge, torch.arange(node_count + 1, device=keys.device)))
        edge_codes.append(unique % code_count)
        leaf_edges[order, level] = edge_of_key
        parents = edge_of_key
    return starts, edge_codes, leaf_edges
