"""What needs no training: popularity, and how often two items are in the training sequence of one user.

Co-occurrence has three figures that are chosen on validation: how fast the weight of older items of a history falls,
and by which powers of its number of reviews an item counts for less, as one of the history and as one recommended.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evaluation.beauty.dataset import Beauty

POPULAR_SHARE = 0.05
"""Of the prior, which leaves no item without probability."""
DECAYS = (1.0, 0.8, 0.6)
POWERS = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.25), (0.5, 0.5))


@dataclass(frozen=True, slots=True)
class Weights:
    """The three figures; as they are here, plain counts."""

    decay: float = 1.0
    history_power: float = 0.0
    item_power: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For the results."""
        return asdict(self)


GRID = tuple(Weights(decay, *powers) for decay, powers in itertools.product(DECAYS, POWERS))


class Counts:
    """Reviews of each item [N], and pairs of items [N, N] by users who reviewed both, in training sequences."""

    def __init__(self, beauty: Beauty, device: torch.device) -> None:
        starts, items = beauty.training()
        count = beauty.item_count
        pairs = np.zeros((count, count), np.float32)
        for begin, end in itertools.pairwise(starts.tolist()):
            own = items[begin:end]
            pairs[own[:, None], own] += 1  # no item is in a sequence twice
        np.fill_diagonal(pairs, 0)
        self.pairs = torch.from_numpy(pairs).to(device)
        self.reviews = torch.from_numpy(np.bincount(items, minlength=count).astype(np.float32)).to(device)

    def popularity(self, histories: Tensor) -> Tensor:
        """Scores [B, N], the same for all histories [B, n]."""
        return self.reviews.expand(len(histories), -1)

    def cooccurrence(self, histories: Tensor, weights: Weights) -> Tensor:
        """Scores [B, N] of histories [B, n] that are padded with -1 on the right."""
        known = histories >= 0
        age = known.sum(1, keepdim=True) - 1 - torch.arange(histories.shape[1], device=histories.device)
        rows = histories.long().clamp(min=0)
        reviews = self.reviews.clamp(min=1)
        share = known * weights.decay ** age.clamp(min=0) * reviews[rows] ** -weights.history_power
        found = functional.embedding_bag(rows, self.pairs, per_sample_weights=share.to(self.pairs.dtype), mode="sum")
        return found * reviews**-weights.item_power

    def log_prior(self, histories: Tensor, weights: Weights) -> Tensor:
        """The same as log-probabilities [B, N], with a share by popularity."""
        scores, popular = self.cooccurrence(histories, weights), self.reviews / self.reviews.sum()
        total = scores.sum(1, keepdim=True)
        own = torch.where(total > 0, scores / total.clamp(min=1e-12), popular)
        return torch.log((1 - POPULAR_SHARE) * own + POPULAR_SHARE * (popular + 1 / len(popular)) / 2)
