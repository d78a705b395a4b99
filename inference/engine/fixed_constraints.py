"""Constraints for a GPU: no tensor's shape depends on what is in another one, so nothing waits for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from inference.engine.constraints import Constraints
from inference.engine.index import CatalogueIndex


@dataclass(frozen=True, slots=True)
class FixedConstraints(Constraints):
    """Closes what `Constraints` closes. All children are looked at: on a GPU that is less than finding the few."""

    paths: Tensor | None
    """int64 [B, X, L]: the edges that the paths to each request's excluded leaves take, -1 where it excludes fewer."""

    @classmethod
    def _made(
        cls, index: CatalogueIndex, masked: tuple[Tensor, ...] | None, supply: Tensor, pairs: Tensor | None
    ) -> Self:
        return cls(index, masked, None, supply, None if pairs is None else _paths(index, pairs, len(supply)))

    @property
    def individual(self) -> bool:
        """Whether a request's own wishes count, besides what its beams hold."""
        return self.masked is not None or self.paths is not None

    def closed(self, level: int, children: Tensor, before: Tensor, held: Tensor, requests: int) -> Tensor:
        """As `Constraints.closed`."""
        rows, branch = held.shape[0], children.shape[1]
        taken = self._counts(level, branch, before, held, requests)
        if self.masked is None:
            return (taken > 0) & (self.index.leaves_below(level, children) <= taken)
        spread = children.expand(rows, -1).reshape(requests, -1)
        left = self.masked[level].expand(requests, -1).gather(1, spread).view(rows, branch)
        return left <= taken

    def _counts(self, level: int, branch: int, before: Tensor, held: Tensor, requests: int) -> Tensor:
        """How many leaves below each child are held or excluded: int32 [R, C]."""
        rows = len(before)
        edges = self.index.trie.path_edges(held)[..., level]  # [R, k]
        if self.paths is not None:
            edges = torch.cat([edges, self.paths[..., level].repeat_interleave(rows // requests, dim=0)], dim=1)
        first, end = (bound.unsqueeze(1) for bound in self.index.trie.edges(level, before))
        row = torch.arange(rows, device=before.device).unsqueeze(1) * branch
        below = (edges >= first) & (edges < end)
        place = torch.where(below, row + edges - first, rows * branch)  # others are counted where nobody looks
        counts = torch.zeros(rows * branch + 1, dtype=torch.int32, device=before.device)
        counts.scatter_add_(0, place.flatten(), counts.new_ones(place.numel()))
        return counts[:-1].view(rows, branch)


def _paths(index: CatalogueIndex, pairs: Tensor, requests: int) -> Tensor:
    """Distinct pairs (request, leaf) int64 [2, E] on CPU, request by request, as edges [B, X, L]."""
    request, leaves = pairs
    sizes = torch.bincount(request, minlength=requests)
    column = torch.arange(len(request)) - (sizes.cumsum(0) - sizes)[request]
    padded = torch.full((requests, int(sizes.max())), -1)
    padded[request, column] = leaves
    padded = padded.to(index.trie.device)
    return index.trie.path_edges(padded.clamp(min=0)).masked_fill(padded.unsqueeze(-1) < 0, -1)
