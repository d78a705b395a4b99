"""BERT4Rec (Sun et al., CIKM 2019): a bidirectional transformer that fills in masked items.

Every exposure with what the user did is input. Masked are positives, in training a share of them at random or, for
half of the users, the newest exposure alone, which is what prediction looks like.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.baselines.sequences import NONE, POSITIVE, SequenceBatch
from evaluation.baselines.targets import cross_entropy, nothing
from evaluation.baselines.training import SequenceModel
from evaluation.baselines.transformer import ExposureEmbedding, Trunk, TrunkSettings, newest

MASKED_SHARE = 0.3


class BERT4Rec(SequenceModel):
    """Scores come from the state at a mask behind the newest exposure."""

    def __init__(self, items: int, settings: TrunkSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.embedding = ExposureEmbedding(items, settings.width, extra=1)
        self.trunk = Trunk(settings, causal=False)
        width = settings.width
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(items))
        self.mask_token = items + 1

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """Cross-entropy at the masks."""
        hidden = self._choose(batch)
        if nothing(hidden):
            return None
        tokens = torch.where(hidden, self.mask_token, batch.tokens)
        marks = torch.where(hidden, NONE, batch.marks)
        states = self.trunk(self.embedding(tokens, marks), batch.mask)
        targets = (batch.tokens - 1).clamp(min=0)
        return cross_entropy(self.head(states), self.embedding.catalogue(), targets, hidden, self.bias)

    def scores(self, batch: SequenceBatch) -> Tensor:
        """Logits [B, N]."""
        at = batch.lengths.unsqueeze(1)
        tokens = functional.pad(batch.tokens, (0, 1)).scatter(1, at, self.mask_token)
        marks = functional.pad(batch.marks, (0, 1)).scatter(1, at, NONE)
        longer = SequenceBatch(tokens, marks, functional.pad(batch.watch_ms, (0, 1), value=-1))
        return self._logits(newest(self.trunk(self.embedding(tokens, marks), longer.mask), longer))

    def _choose(self, batch: SequenceBatch) -> Tensor:
        """Bool [B, n]: which positives are masked."""
        positives = batch.marks == POSITIVE
        device = positives.device
        random = positives & (torch.rand(positives.shape, device=device) < MASKED_SHARE)
        last = torch.arange(positives.shape[1], device=device) == (batch.lengths - 1).clamp(min=0).unsqueeze(1)
        drawn = torch.rand(len(batch), device=device) < 0.5
        like_prediction = drawn.unsqueeze(1) & (positives & last).any(1, keepdim=True)
        return torch.where(like_prediction, positives & last, random)

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(states) @ self.embedding.catalogue().t() + self.bias
        return logits
