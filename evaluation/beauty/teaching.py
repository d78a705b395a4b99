"""Codes taught by item vectors: what is generated learns from what the model's own item vectors find probable.

One target an item says little, and codes lose the more by it, since each level learns from those samples alone that
pass through its node. The item vectors of the averaged model, without dropout, give a distribution q over all items.
An item is drawn from it for each sample, and along its path the codes learn q's own shares of the children. In
expectation that is the divergence of what is generated from q: the sum over levels of the cross-entropies at each
node, weighted by how much of q is below the node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onerec.model.trie import Trie

LEAST = 1e-9


class Lesson(NamedTuple):
    """One drawn item for each of B samples, and the shares of q along its path: by level [B, C], 0 for padding."""

    drawn: Tensor
    shares: list[Tensor]


@torch.no_grad()
def lesson(probabilities: Tensor, trie: Trie) -> Lesson:
    """Draw from `probabilities` [B, N] of the trie's leaves, which stand there in the order of their paths."""
    sums = _running_sums(probabilities)
    points = sums[:, -1:] * torch.rand_like(sums[:, -1:])
    places = torch.searchsorted(sums, points, right=True)  # where the sum passes a point: at no item of probability 0
    drawn = trie.leaves_in_order(places.clamp(max=sums.shape[1] - 1)).squeeze(1)
    nodes, _ = trie.path_targets(drawn)

    def before(places: Tensor) -> Tensor:
        return sums.gather(1, (places - 1).clamp(min=0)).masked_fill(places == 0, 0.0)

    shares = []
    for level in range(trie.levels):
        children = trie.children(level, nodes[:, level])
        first, end = children.nodes, children.nodes + 1
        if level + 1 < trie.levels:
            bounds = trie.leaf_bounds(level).long()
            first, end = bounds[first], bounds[end]
        mass = (before(end) - before(first)).clamp(min=0).masked_fill(~children.legal, 0.0)
        shares.append((mass / mass.sum(1, keepdim=True).clamp(min=LEAST)).float())
    return Lesson(drawn, shares)


def _running_sums(values: Tensor) -> Tensor:
    """Float64 [B, N], since small differences of these are wanted. On a CPU numpy is faster than torch."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.cumsum(values.numpy(), axis=1, dtype=np.float64))
    return values.cumsum(1, dtype=torch.float64)


def taught_loss(found: list[Tensor], shares: list[Tensor]) -> Tensor:
    """Cross-entropy of the shares [B, C] and the log-probabilities [B, C] of each level, mean over samples."""
    total = torch.zeros((), device=found[0].device)
    for every, share in zip(found, shares, strict=True):
        total = total - (share * every.masked_fill(share == 0, 0.0)).sum(1).mean()
    return total
