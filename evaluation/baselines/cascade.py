"""The cascade that OneRec replaces: retrieval of hundreds, pre-ranking to fewer, ranking by several objectives.

Each stage sees only what the stage before let through, so what retrieval misses is lost (paper, section 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.baselines.multi_objective import ObjectiveModel, overall
from evaluation.baselines.sequences import SequenceBatch
from evaluation.baselines.training import Recommends


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many items leave retrieval and pre-ranking; fewer where the catalogue has fewer."""

    retrieved: int
    pre_ranked: int


class Stages(NamedTuple):
    """What left each stage, for B users, best first, on CPU. A value of -inf is no item: the user has seen it."""

    retrieved: Tensor  # int64 [B, retrieved]
    pre_ranked: Tensor  # int64 [B, pre_ranked]
    ranked: Tensor  # int64 [B, pre_ranked]: the same items in the ranker's order
    values: Tensor  # float32 [B, pre_ranked]: the ranker's, falling


class Cascade:
    """Three models, each trained by itself."""

    def __init__(self, retrieval: Recommends, pre_ranker: ObjectiveModel, ranker: ObjectiveModel, sizes: Sizes) -> None:
        self._retrieval, self._pre_ranker, self._ranker, self._sizes = retrieval, pre_ranker, ranker, sizes

    @torch.inference_mode()
    def recommend(self, batch: SequenceBatch, seen: list[NDArray[np.int64]]) -> Stages:
        """All stages for a batch, on the models' device; `seen` are the items of each user that are left out."""
        device = batch.tokens.device
        scores = self._retrieval.scores(batch).cpu().clone()
        for row, own in zip(scores, seen, strict=True):
            row[torch.from_numpy(own)] = -torch.inf
        found = scores.topk(min(self._sizes.retrieved, scores.shape[1]), dim=1)
        possible = torch.isfinite(found.values)
        light = overall(self._pre_ranker.rate(batch, found.indices.to(device)).cpu(), possible)
        kept = light.topk(min(self._sizes.pre_ranked, light.shape[1]), dim=1)
        pre_ranked = found.indices.gather(1, kept.indices)
        heavy = overall(self._ranker.rate(batch, pre_ranked.to(device)).cpu(), torch.isfinite(kept.values))
        values, order = heavy.sort(dim=1, descending=True)
        return Stages(found.indices, pre_ranked, pre_ranked.gather(1, order), values)
