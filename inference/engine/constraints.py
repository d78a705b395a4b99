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


@dataclass(frozen=True, slots=True)
class Constraints:
    """Allowed leaves below each node, for each request or for all alike."""

    index: CatalogueIndex
    counts: tuple[Tensor, ...]  # L times int32 [B or 1, nodes after the level]
    individual: bool  # whether counts differ by request

    @classmethod
    def of(cls, index: CatalogueIndex, requests: int, limits: Limits) -> Self:
        """Count what each of `requests` may take. Raises ValueError where a size does not fit."""
        exclude, allowed = limits
        total = len(index.trie)
        if exclude is not None and len(exclude) != requests:
            raise ValueError(f"{len(exclude)} lists of excluded leaves for {requests} requests.")
        if allowed is not None and allowed.shape not in {(total,), (requests, total)}:
            raise ValueError(f"allowed is {tuple(allowed.shape)}, neither ({total},) nor ({requests}, {total}).")
        if allowed is None and (exclude is None or not any(len(leaves) for leaves in exclude)):
            return cls(index, tuple(count.unsqueeze(0) for count in index.counts), individual=False)
        device = index.nodes.device
        pairs = _excluded_pairs(exclude or (), device)
        if allowed is None:
            return cls(index, _subtract(index, requests, pairs), individual=True)
        alive = allowed.to(device).expand(requests, total).clone()
        alive[pairs[0], pairs[1]] = False
        return cls(index, _count(index, alive), individual=True)

    def allowed_items(self) -> Tensor:
        """How many items each request may take: int64 [B], or [1] where they are alike."""
        return self.counts[0].sum(1)

    def binds(self, level: int, held: int) -> bool:
        """Whether a step at `level` by beams that hold `held` items may have to refuse a child."""
        return self.individual or self.index.fewest[level] <= held

    def closed(self, level: int, children: Tensor, before: Tensor, held: Tensor, requests: int) -> Tensor:
        """Whether a child is closed to a beam: bool [R, C].

        `children` int64 [R, C] are nodes after `level` (or [1, C] for all rows alike), `before` int64 [R] the nodes
        they hang from, `held` int64 [R, k] the leaves that each beam holds.
        """
        rows = held.shape[0]
        counts = self.counts[level]
        if self.individual:
            spread = children.expand(rows, -1).reshape(requests, -1)
            left = counts.gather(1, spread).view(rows, -1)
        else:
            left = counts[0][children].expand(rows, -1)
        if held.shape[1]:
            if level == 0:
                through = torch.ones_like(held, dtype=torch.bool)
            else:
                through = self.index.nodes[held, level - 1] == before.unsqueeze(1)
            left = left.scatter_add(1, self.index.ranks[held, level], -through.int())
        closed: Tensor = left <= 0
        return closed


def _excluded_pairs(exclude: Sequence[Tensor], device: torch.device) -> Tensor:
    """Distinct pairs (request, leaf) as int64 [2, E]."""
    lists = [leaves[leaves >= 0].to(device) for leaves in exclude]
    if not lists:
        return torch.empty(2, 0, dtype=torch.int64, device=device)
    sizes = torch.tensor([len(leaves) for leaves in lists], device=device)
    request = torch.repeat_interleave(torch.arange(len(lists), device=device), sizes)
    pairs: Tensor = torch.unique(torch.stack([request, torch.cat(lists)]), dim=1)
    return pairs


def _subtract(index: CatalogueIndex, requests: int, pairs: Tensor) -> tuple[Tensor, ...]:
    minus = torch.full_like(pairs[1], -1, dtype=torch.int32)
    counts = []
    for level, count in enumerate(index.counts):
        own = count.expand(requests, -1).clone()
        own.index_put_((pairs[0], index.nodes[pairs[1], level]), minus, accumulate=True)
        counts.append(own)
    return tuple(counts)


def _count(index: CatalogueIndex, alive: Tensor) -> tuple[Tensor, ...]:
    """Leaves that are True in `alive` bool [B, N], below each node."""
    ones = alive.int()
    counts = []
    for level, count in enumerate(index.counts):
        own = torch.zeros(len(alive), len(count), dtype=torch.int32, device=alive.device)
        counts.append(own.index_add_(1, index.nodes[:, level], ones))
    return tuple(counts)
