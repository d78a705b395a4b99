"""Which items a beam may still take: request constraints and the items it already holds.

What is guaranteed. For each request and node of the trie the leaves below it that the request allows are counted.
A beam steps to a node only if more allowed leaves lie below it than the beam already holds of them. So

* no returned item is excluded, disallowed or repeated within its session;
* no beam ends in a dead end: whatever prefix it holds can be completed to an item, and with m allowed items or
  more, to a whole session;
* log-probabilities are those of the model over the whole catalogue: constraints remove candidates AFTER the
  softmax, so the probabilities of what is left sum to less than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from inference.engine.index import CatalogueIndex


class Limits(NamedTuple):
    """What requests rule out."""

    exclude: Sequence[Tensor] | None = None  # int64 leaves of each request, any order; repeats and -1 do no harm
    allowed: Tensor | None = None  # bool [N] or [B, N]


class Excluded(NamedTuple):
    """The edges of a level below which requests exclude leaves."""

    stride: int
    """More than the level has edges."""
    keys: Tensor  # int64 [U], ascending and distinct: request * stride + edge
    counts: Tensor  # int32 [U]: leaves excluded below


@dataclass(frozen=True, slots=True)
class Constraints:
    """Allowed leaves below each node, for each request or for all alike.

    What a request excludes is few and kept as a sorted list a level, so that it costs the same in a large catalogue
    as in a small one. A mask is as long as the catalogue, and so is the work for it.
    """

    index: CatalogueIndex
    masked: tuple[Tensor, ...] | None  # L times integers [B or 1, nodes after the level]: leaves that masks allow
    excluded: tuple[Excluded, ...] | None  # L times
    supply: Tensor  # int64 [B], or [1] where they are alike: items that each request may take

    @classmethod
    def of(cls, index: CatalogueIndex, requests: int, limits: Limits) -> Self:
        """Count what each of `requests` may take. Raises ValueError where a size does not fit."""
        exclude, allowed = limits
        total, device = len(index.trie), index.trie.device
        if exclude is not None and len(exclude) != requests:
            raise ValueError(f"{len(exclude)} lists of excluded leaves for {requests} requests.")
        if allowed is not None and allowed.shape not in {(total,), (requests, total)}:
            raise ValueError(f"allowed is {tuple(allowed.shape)}, neither ({total},) nor ({requests}, {total}).")
        supply, masked = torch.tensor([total], device=device), None
        pairs = _excluded_pairs(exclude or ())
        if allowed is not None:
            rows = allowed.view(-1, total)
            left = rows.expand(requests, -1)[pairs[0].to(rows.device), pairs[1].to(rows.device)].to(pairs.device)
            pairs = pairs[:, left]  # the others are not counted anyway
            rows = rows.to(device)
            supply, masked = rows.sum(1), _count(index, rows)
        if not pairs.shape[1]:
            return cls._made(index, masked, supply, None)
        supply = supply - torch.bincount(pairs[0], minlength=requests).to(device)
        return cls._made(index, masked, supply, pairs)

    @classmethod
    def _made(
        cls, index: CatalogueIndex, masked: tuple[Tensor, ...] | None, supply: Tensor, pairs: Tensor | None
    ) -> Self:
        """`pairs` are the distinct (request, leaf) that are excluded: int64 [2, E], ascending, on CPU."""
        excluded = None if pairs is None else _by_level(index, pairs.to(index.trie.device))
        return cls(index, masked, excluded, supply)

    @property
    def individual(self) -> bool:
        """Whether a request's own wishes count, besides what its beams hold."""
        return self.masked is not None or self.excluded is not None

    def binds(self, level: int, held: int) -> bool:
        """Whether a step at `level` by beams that hold `held` items may have to refuse a child."""
        return self.individual or self.index.fewest[level] <= held

    def closed(self, level: int, children: Tensor, before: Tensor, held: Tensor, requests: int) -> Tensor:
        """Whether a child is closed to a beam: bool [R, C].

        `children` int64 [R, C] are those of Trie.children (or [1, C] for all rows alike), `before` int64 [R] the nodes
        they hang from, `held` int64 [R, k] the leaves that each beam holds.
        """
        rows, branch = held.shape[0], children.shape[1]
        closed = self._closed_by_masks(level, children, rows, requests)
        places, counts = self._taken(level, branch, before, held, requests)
        if len(places):
            row = places // branch
            nodes = self.index.trie.edges(level, before)[0][row] + places % branch
            closed.view(-1)[places] = self._left(level, nodes, row // (rows // requests)) <= counts
        return closed

    def _closed_by_masks(self, level: int, children: Tensor, rows: int, requests: int) -> Tensor:
        """Children [R, C] below which no leaf is allowed."""
        if self.masked is None:
            return torch.zeros(rows, children.shape[1], dtype=torch.bool, device=children.device)
        spread = children.expand(rows, -1).reshape(requests, -1)
        return (self.masked[level].expand(requests, -1).gather(1, spread) == 0).view(rows, -1)

    def _left(self, level: int, nodes: Tensor, request: Tensor) -> Tensor:
        """How many leaves below children at `level` are allowed, whatever is taken of them."""
        if self.masked is None:
            return self.index.leaves_below(level, nodes)
        counts = self.masked[level]
        return counts[request if len(counts) > 1 else torch.zeros_like(request), nodes].int()

    def _taken(self, level: int, branch: int, before: Tensor, held: Tensor, requests: int) -> tuple[Tensor, Tensor]:
        """Where leaves below children are held or excluded: places row * C + rank, distinct, and how many leaves.

        They are few. All other children have as many leaves as the trie and the masks say, and are not looked at.
        """
        nodes, ranks = self.index.trie.path_targets(held)
        row, item = (nodes[..., level] == before.unsqueeze(1)).nonzero(as_tuple=True)
        places, counts = row * branch + ranks[row, item, level], torch.ones_like(row)
        if self.excluded is not None:
            row, rank, count = self._excluded_below(level, before, requests)
            places, counts = torch.cat([places, row * branch + rank]), torch.cat([counts, count.long()])
        distinct, which = torch.unique(places, return_inverse=True)
        return distinct, torch.zeros_like(distinct).index_add_(0, which, counts)

    def _excluded_below(self, level: int, before: Tensor, requests: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where leaves below children of `before` [R] are excluded: rows, ranks among the children, and how many.

        The excluded edges of a request below one node are neighbours in the sorted list.
        """
        assert self.excluded is not None
        excluded = self.excluded[level]
        first, end = self.index.trie.edges(level, before)
        rows = torch.arange(len(before), device=before.device)
        base = rows // (len(before) // requests) * excluded.stride
        low, high = torch.searchsorted(excluded.keys, torch.stack([base + first, base + end]))
        found = high - low
        row = torch.repeat_interleave(rows, found)
        within = torch.arange(len(row), device=before.device) - (found.cumsum(0) - found)[row]
        place = low[row] + within
        return row, excluded.keys[place] - (base + first)[row], excluded.counts[place]


def _excluded_pairs(exclude: Sequence[Tensor]) -> Tensor:
    """Distinct pairs (request, leaf) as int64 [2, E], ascending, on CPU: they are few, a GPU would be waited for."""
    lists = [leaves[leaves >= 0] for leaves in (leaves.cpu() for leaves in exclude)]
    if not lists:
        return torch.empty(2, 0, dtype=torch.int64)
    sizes = torch.tensor([len(leaves) for leaves in lists])
    request = torch.repeat_interleave(torch.arange(len(lists)), sizes)
    pairs: Tensor = torch.unique(torch.stack([request, torch.cat(lists)]), dim=1)
    return pairs


def _by_level(index: CatalogueIndex, pairs: Tensor) -> tuple[Excluded, ...]:
    """Distinct pairs (request, leaf) int64 [2, E], as edges of each level."""
    stride = len(index.trie) + 1
    edges = index.trie.path_edges(pairs[1])
    levels = []
    for level in range(index.trie.levels):
        keys, counts = torch.unique(pairs[0] * stride + edges[:, level], return_counts=True)
        levels.append(Excluded(stride, keys, counts.int()))
    return tuple(levels)


def _count(index: CatalogueIndex, allowed: Tensor) -> tuple[Tensor, ...]:
    """Leaves that are True in `allowed` bool [B, N], below each node."""
    in_order = allowed[:, index.trie.leaves_in_order()]
    before = torch.nn.functional.pad(in_order.cumsum(1, dtype=torch.int32), (1, 0))
    upper = (before[:, bounds.long()].diff(dim=1) for bounds in index.bounds)
    return (*upper, in_order)
