"""The catalogue as a trie of semantic ids: which codes may follow a prefix.

Immutable CSR tensors, built by sorting: the edges of level l are sorted by (parent, code), and an edge's index is
the id of the node it leads to. Rebuilding is how items are added. Leaves below a node are neighbours among the edges
of the last level, so how many there are is a difference of two bounds and is not stored. Everything is in the
narrowest integers that hold it: 20 bytes an item where prefixes are shared, 30 where none is; queries answer in int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from onerec.model.narrow import narrowed


class Children(NamedTuple):
    """The children of R nodes, padded to the widest branch C of their level."""

    codes: Tensor  # int64 [R, C]
    nodes: Tensor  # int64 [R, C]: nodes of the next level; at the last level places in `leaves_in_order`
    legal: Tensor  # bool [R, C]: False is padding, whose code and node are valid indices but mean nothing


class Tensors(NamedTuple):
    """What a trie is made of, for code that walks it by itself; see `Trie.__init__`."""

    starts: list[Tensor]
    edge_codes: list[Tensor]
    parents: list[Tensor]
    last_edges: Tensor
    leaf_of_edge: Tensor


class Trie:
    """Prefix tree over N semantic ids of L codes below K. Root is node 0 of level 0; leaf i is row i of `codes`."""

    __slots__ = ("_edge_codes", "_last_edges", "_leaf_of_edge", "_parents", "_starts", "branches", "codes")

    def __init__(
        self,
        codes: Tensor,
        starts: list[Tensor],
        edge_codes: list[Tensor],
        parents: list[Tensor],
        *,
        last_edges: Tensor,
        leaf_of_edge: Tensor,
    ) -> None:
        """All are integers of any width; see `build`."""
        self.codes = codes  # [N, L]
        self._starts = starts  # by level: [nodes + 1], first edge of a node
        self._edge_codes = edge_codes  # by level: [edges]
        self._parents = parents  # by level from 1 on: [edges], the node that an edge hangs from
        self._last_edges = last_edges  # [N]: the edge of the last level that leads to a leaf
        self._leaf_of_edge = leaf_of_edge  # [N]: its inverse
        self.branches = [int((s[1:] - s[:-1]).max()) if len(s) > 1 else 0 for s in starts]  # C by level

    @classmethod
    def build(cls, codes: Tensor, code_count: int) -> Self:
        """Build from `codes`, integers [N, L]; `code_count` is K.

        `codes` is kept as it is where it is as narrow as K allows. Raises ValueError for an empty catalogue, codes
        outside 0..K-1, ids that two rows share, or K**L beyond 63 bits.
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
        last_edges = torch.empty_like(order)
        last_edges[order] = torch.arange(count, device=codes.device)
        starts, edge_codes, parents = _edges(keys, levels, code_count)
        return cls(
            narrowed(codes, code_count - 1),
            starts,
            edge_codes,
            parents,
            last_edges=narrowed(last_edges, count - 1),
            leaf_of_edge=narrowed(order, count - 1),
        )

    def __len__(self) -> int:
        return self.codes.shape[0]

    @property
    def levels(self) -> int:
        """L: codes of a semantic id."""
        return self.codes.shape[1]

    @property
    def device(self) -> torch.device:
        """Where its tensors lie."""
        return self.codes.device

    @property
    def tensors(self) -> Tensors:
        """What it is made of; not to be written."""
        return Tensors(self._starts, self._edge_codes, self._parents, self._last_edges, self._leaf_of_edge)

    def codes_of(self, leaves: Tensor) -> Tensor:
        """Codes int64 [..., L] of `leaves` int64 [...]."""
        return self.codes[leaves].long()

    def leaf(self, codes: Sequence[int]) -> int:
        """The leaf of a semantic id, -1 where there is none; on CPU."""
        node = 0
        for starts, edge_codes, code in zip(self._starts, self._edge_codes, codes, strict=True):
            first, end = starts[node : node + 2].tolist()
            siblings = edge_codes.numpy()[first:end]
            place = int(np.searchsorted(siblings, siblings.dtype.type(code)))
            if place == end - first or siblings[place] != code:
                return -1
            node = first + place
        return int(self._leaf_of_edge[node])

    def children(self, level: int, nodes: Tensor) -> Children:
        """Children of `nodes` int64 [R], which are nodes of `level`; C is the widest branch of that level."""
        first, end = (bound.unsqueeze(1) for bound in self.edges(level, nodes))
        step = torch.arange(self.branches[level], device=nodes.device)
        legal = step < end - first
        edges = torch.minimum(first + step, end - 1)
        codes = self._edge_codes[level][edges].long()
        return Children(codes, edges, legal)

    def edges(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """First edge of `nodes` int64 [...] of `level`, and the one after their last: int64 [...] both."""
        starts = self._starts[level]
        return starts[nodes].long(), starts[nodes + 1].long()

    def path_edges(self, leaves: Tensor) -> Tensor:
        """The edges that the paths to `leaves` int64 [...] take: int64 [..., L]."""
        edges = [self._last_edges[leaves].long()]
        for parents in reversed(self._parents):
            edges.append(parents[edges[-1]].long())
        return torch.stack(edges[::-1], dim=-1)

    def mean_branch(self, level: int) -> float:
        """How many children a node of `level` has on average."""
        return len(self._edge_codes[level]) / (len(self._starts[level]) - 1)

    def child_counts(self, level: int, nodes: Tensor) -> Tensor:
        """How many children each of `nodes` int64 [R] of `level` has: int64 [R]."""
        starts = self._starts[level]
        return starts[nodes + 1] - starts[nodes]

    def path_targets(self, leaves: Tensor) -> tuple[Tensor, Tensor]:
        """Where the path to each leaf passes: for `leaves` int64 [...] the pair (nodes, rank), int64 [..., L].

        nodes[..., l] is the node before level l, rank[..., l] the index of the right one among its children.
        """
        edges = self.path_edges(leaves)
        nodes = torch.zeros_like(edges)
        nodes[..., 1:] = edges[..., :-1]
        first = torch.stack([self._starts[level][nodes[..., level]] for level in range(self.levels)], dim=-1)
        return nodes, edges - first

    def leaves_in_order(self, places: Tensor | None = None) -> Tensor:
        """Leaves in the order of their paths: all as int64 [N], or those at `places` int64 [...]."""
        return (self._leaf_of_edge if places is None else self._leaf_of_edge[places]).long()

    def leaf_bounds(self, level: int) -> Tensor:
        """[edges of `level` + 1]: where the leaves below the node that an edge leads to begin, in `leaves_in_order`.

        The difference of two neighbours is how many there are. Not for the last level, whose edges lead to leaves.
        """
        bounds = self._starts[level + 1]
        for starts in self._starts[level + 2 :]:
            bounds = starts[bounds.long()]
        return bounds

    def to(self, device: torch.device | str) -> Trie:
        """Copy to a device."""
        return Trie(
            self.codes.to(device),
            [t.to(device) for t in self._starts],
            [t.to(device) for t in self._edge_codes],
            [t.to(device) for t in self._parents],
            last_edges=self._last_edges.to(device),
            leaf_of_edge=self._leaf_of_edge.to(device),
        )


def _edges(keys: Tensor, levels: int, code_count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """CSR of every level from the sorted keys [N]: (starts, edge codes, parents)."""
    starts, edge_codes, parents = [], [], []
    node_of_key = torch.zeros_like(keys)  # [N] node before this level
    for level in range(levels):
        prefix = keys.div(code_count ** (levels - 1 - level), rounding_mode="floor")
        unique, edge_of_key = torch.unique_consecutive(prefix, return_inverse=True)
        parent_of_edge = node_of_key[torch.searchsorted(prefix, unique)]
        node_count = int(node_of_key[-1]) + 1
        first = torch.searchsorted(parent_of_edge, torch.arange(node_count + 1, device=keys.device))
        starts.append(narrowed(first, len(unique)))
        edge_codes.append(narrowed(unique % code_count, code_count - 1))
        if level:
            parents.append(narrowed(parent_of_edge, node_count - 1))
        node_of_key = edge_of_key
    return starts, edge_codes, parents
