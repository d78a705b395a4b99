"""SASRec (Kang and McAuley, ICDM 2018): a causal transformer whose state is compared with item embeddings.

As published: positives alone as input, one sampled negative a position, binary cross-entropy. Tuned: every exposure
with what the user did, softmax over the whole catalogue on the positives. The published loss is what makes
SASRec weak in most comparisons, so both are rows of their own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.baselines.sequences import POSITIVE, SequenceBatch, shifted
from evaluation.baselines.targets import cross_entropy, mean_of, nothing
from evaluation.baselines.training import SequenceModel
from evaluation.baselines.transformer import ExposureEmbedding, Trunk, TrunkSettings, newest

Loss = Literal["sampled", "softmax"]


class SASRec(SequenceModel):
    """Scores are products of the newest state and the item embeddings."""

    def __init__(self, items: int, settings: TrunkSettings, loss: Loss) -> None:
        super().__init__()
        self.length, self.kind = settings.length, loss
        self.embedding = ExposureEmbedding(items, settings.width)
        self.trunk = Trunk(settings, causal=True)

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """On every exposure that is a positive and has one before it."""
        inputs, targets, wanted = shifted(_as_published(batch) if self.kind == "sampled" else batch)
        if nothing(wanted):
            return None
        states = self._states(inputs)
        if self.kind == "softmax":
            return cross_entropy(states, self.embedding.catalogue(), targets, wanted)
        return mean_of(self._sampled, states, targets, wanted)

    def scores(self, batch: SequenceBatch) -> Tensor:
        """Logits [B, N]."""
        given = _as_published(batch) if self.kind == "sampled" else batch
        return newest(self._states(given), given) @ self.embedding.catalogue().t()

    def _states(self, batch: SequenceBatch) -> Tensor:
        states: Tensor = self.trunk(self.embedding(batch.tokens, batch.marks), batch.mask)
        return states

    def _sampled(self, states: Tensor, targets: Tensor) -> Tensor:
        """[T] of states [T, d]."""
        table = self.embedding.catalogue()
        others = torch.randint(len(table) - 1, targets.shape, device=targets.device)
        others = others + (others >= targets)  # any item but the target
        right, wrong = (states * table[targets]).sum(1), (states * table[others]).sum(1)
        return -(functional.logsigmoid(right) + functional.logsigmoid(-wrong))


def _as_published(batch: SequenceBatch) -> SequenceBatch:
    """The positives alone, moved to the left; on CPU as short as the longest of them."""
    kept = batch.marks == POSITIVE
    order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
    width = max(2, int(kept.sum(1).max()) if kept.device.type == "cpu" else kept.shape[1])

    def moved(values: Tensor, fill: int) -> Tensor:
        gathered = torch.where(kept, values, fill).gather(1, order)
        return functional.pad(gathered, (0, max(0, width - gathered.shape[1])), value=fill)[:, :width]

    return SequenceBatch(moved(batch.tokens, 0), moved(batch.marks, 0), moved(batch.watch_ms, -1))
