"""FDSA (Zhang et al., IJCAI 2019): one causal transformer over items beside one over their attributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.baselines.attributes import AttributeEmbedding, ItemAttributes
from evaluation.baselines.sequences import SequenceBatch, shifted
from evaluation.baselines.targets import cross_entropy, nothing
from evaluation.baselines.training import SequenceModel
from evaluation.baselines.transformer import ExposureEmbedding, Trunk, TrunkSettings, newest


class FDSA(SequenceModel):
    """The two newest states side by side, projected, are compared with the item embeddings."""

    def __init__(self, attributes: ItemAttributes, settings: TrunkSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.embedding = ExposureEmbedding(len(attributes.table), settings.width)
        self.features = AttributeEmbedding(attributes, settings.width)
        self.item_trunk = Trunk(settings, causal=True)
        self.feature_trunk = Trunk(settings, causal=True)
        self.join = nn.Sequential(nn.Linear(2 * settings.width, settings.width), nn.LayerNorm(settings.width))

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """Softmax over the catalogue at every positive."""
        inputs, targets, wanted = shifted(batch)
        if nothing(wanted):
            return None
        return cross_entropy(self.join(self._states(inputs)), self.embedding.catalogue(), targets, wanted)

    def scores(self, batch: SequenceBatch) -> Tensor:
        """Logits [B, N]."""
        return self._logits(newest(self._states(batch), batch))

    def _states(self, batch: SequenceBatch) -> Tensor:
        """Both trunks' states side by side, [B, n, 2 d]."""
        features = functional.pad(self.features(), (0, 0, 1, 0))[batch.tokens]
        items = self.item_trunk(self.embedding(batch.tokens, batch.marks), batch.mask)
        marks = self.embedding.mark(batch.marks)
        return torch.cat([items, self.feature_trunk(features + marks, batch.mask)], dim=-1)

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.join(states) @ self.embedding.catalogue().t()
        return logits
