"""Models that rate a user's items by objective: the light pre-ranker and the heavier ranker of a cascade.

Both learn from every exposure what the user then did with it, as the cascade's models do: watch time, long view,
follow, like (swt, vtr, wtr, ltr), each by cross-entropy where it is known. Histories from before the log know neither
watch time nor follows. Letters: B users, n exposures, k items to rate, N items of the catalogue, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.baselines.attributes import AttributeEmbedding, ItemAttributes
from evaluation.baselines.sequences import SequenceBatch, shifted
from evaluation.baselines.targets import nothing
from evaluation.baselines.training import SequenceModel
from evaluation.baselines.transformer import ExposureEmbedding, TrunkSettings, newest
from inference.sampler.pairs import merged
from onerec.model.attention import CrossAttention, causal_bias, padding_bias
from onerec.model.reward import MEAN_WATCH_S, OBJECTIVES, Rewards, watch_target
from onerec.settings import RewardWeights
from schemas.labels import Label

ITEM_WATCH_S = MEAN_WATCH_S / 5
"""Scale of one item's watch time; a session of the log has five."""
EXPERTS = 4
COUNT = len(OBJECTIVES)


def targets(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """What became of each exposure, float32 [B, n, 4] in [0, 1], and where that is known, bool [B, n, 4]."""
    assert batch.labels is not None, "the batch comes from sequence_batch"
    timed = batch.watch_ms >= 0
    marked = [(batch.labels & int(label)) != 0 for label in (Label.LONG_VIEW, Label.FOLLOW, Label.LIKE)]
    watched = watch_target(batch.watch_ms.clamp(min=0), ITEM_WATCH_S)
    values = torch.stack([watched, *(mark.float() for mark in marked)], dim=-1)
    known = torch.stack([timed, batch.mask, timed, batch.mask], dim=-1) & batch.mask.unsqueeze(-1)
    return values, known


def overall(ratings: Tensor, possible: Tensor) -> Tensor:
    """One value an item [B, k] of ratings [B, k, 4]: standardised over the user's items, weighed; -inf: not possible.

    The merge is the one that makes preference pairs of sessions. On CPU.
    """
    values = torch.full(possible.shape, -torch.inf)
    for row, own, some in zip(values, ratings, possible, strict=True):
        if bool(some.any()):
            row[some] = merged(Rewards(*own[some].unbind(-1)), RewardWeights())
    return values


class ObjectiveModel(SequenceModel):
    """Rates items by objective: subclasses give logits."""

    def __init__(self, attributes: ItemAttributes, settings: TrunkSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.embedding = ExposureEmbedding(len(attributes.table), settings.width)
        self.features = AttributeEmbedding(attributes, settings.width)

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """Cross-entropy of each objective over the exposures that it is known of, summed."""
        inputs, following, _ = shifted(batch)
        values, known = (columns[:, 1:] for columns in targets(batch))
        if nothing(known):
            return None
        logits = self.next_logits(inputs, following)
        losses = functional.binary_cross_entropy_with_logits(logits, values, reduction="none") * known
        return (losses.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)).sum()

    def rate(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """Probabilities [B, k, 4] of items int64 [B, k]."""
        return torch.sigmoid(self.logits(batch, items))

    def scores(self, batch: SequenceBatch) -> Tensor:
        """`overall` of the whole catalogue, [B, N]."""
        items = torch.arange(self.embedding.items, device=batch.tokens.device).expand(len(batch), -1)
        return overall(self.rate(batch, items).cpu(), torch.ones(items.shape, dtype=torch.bool))

    def next_logits(self, inputs: SequenceBatch, items: Tensor) -> Tensor:
        """Logits [B, n, 4] of the item [B, n] that follows each input, from the inputs up to it."""
        raise NotImplementedError

    def logits(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """Logits [B, k, 4] of items [B, k] after all of the batch."""
        raise NotImplementedError

    def _catalogue(self) -> Tensor:
        vectors: Tensor = self.embedding.catalogue() + self.features()
        return vectors


class PreRanker(ObjectiveModel):
    """Two towers: a product of a user's vector for each objective and the item's, so that hundreds cost little."""

    def __init__(self, attributes: ItemAttributes, settings: TrunkSettings) -> None:
        super().__init__(attributes, settings)
        width = settings.width
        self.user_tower = _tower(width, settings.hidden, COUNT * width)
        self.item_tower = _tower(width, settings.hidden, width)
        self.bias = nn.Linear(width, COUNT)

    def next_logits(self, inputs: SequenceBatch, items: Tensor) -> Tensor:
        """As `ObjectiveModel.next_logits`."""
        vectors = self.item_tower(self._catalogue())[items]
        users = self._users(inputs)
        products = torch.einsum("bnod,bnd->bno", users, vectors)
        return self._shifted(products, vectors)

    def logits(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """As `ObjectiveModel.logits`."""
        vectors = self.item_tower(self._catalogue())[items]
        users = newest(self._users(batch), batch)
        products = torch.einsum("bod,bkd->bko", users, vectors)
        return self._shifted(products, vectors)

    def _users(self, batch: SequenceBatch) -> Tensor:
        """[B, n, 4, d] from the mean of the exposures up to each."""
        mask = batch.mask.unsqueeze(-1)
        exposures = self.embedding(batch.tokens, batch.marks) * mask
        mean = exposures.cumsum(1) / mask.cumsum(1).clamp(min=1)
        out: Tensor = self.user_tower(mean).unflatten(-1, (COUNT, -1))
        return out

    def _shifted(self, products: Tensor, vectors: Tensor) -> Tensor:
        out: Tensor = products * vectors.shape[-1] ** -0.5 + self.bias(vectors)
        return out


class Ranker(ObjectiveModel):
    """The item attends the user's exposures; experts with a gate for each objective (MMoE) rate what comes of it."""

    def __init__(self, attributes: ItemAttributes, settings: TrunkSettings) -> None:
        super().__init__(attributes, settings)
        width, hidden = settings.width, settings.hidden
        self.item_norm, self.exposure_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CrossAttention(width, settings.heads)
        self.experts = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, EXPERTS * hidden), nn.GELU())
        self.dropout = nn.Dropout(settings.dropout)
        self.gates = nn.Linear(3 * width, COUNT * EXPERTS)
        self.towers = nn.Parameter(torch.empty(COUNT, hidden))
        self.bias = nn.Parameter(torch.zeros(COUNT))
        nn.init.normal_(self.towers, std=hidden**-0.5)

    def next_logits(self, inputs: SequenceBatch, items: Tensor) -> Tensor:
        """As `ObjectiveModel.next_logits`."""
        exposures = self._exposures(inputs)
        return self._rated(exposures, items, exposures, causal_bias(items.shape[1], items.device))

    def logits(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """As `ObjectiveModel.logits`."""
        exposures, mask = self._exposures(batch), batch.mask
        recent = newest(exposures, batch).unsqueeze(1).expand(-1, items.shape[1], -1)
        return self._rated(exposures, items, recent, padding_bias(mask | ~mask.any(1, keepdim=True)))

    def _exposures(self, batch: SequenceBatch) -> Tensor:
        states: Tensor = self.exposure_norm(self.embedding(batch.tokens, batch.marks))
        return states

    def _rated(self, exposures: Tensor, items: Tensor, recent: Tensor, bias: Tensor) -> Tensor:
        """[B, k, 4] of items [B, k], the exposures [B, n, d] that each may attend, and the newest of them [B, k, d]."""
        vectors = self.item_norm(self._catalogue())[items]
        x = torch.cat([vectors, self.attention(vectors, exposures, bias), recent], dim=-1)
        experts = self.dropout(self.experts(x)).unflatten(-1, (EXPERTS, -1))  # [B, k, E, h]
        gates = torch.softmax(self.gates(x).unflatten(-1, (COUNT, EXPERTS)), dim=-1)  # [B, k, 4, E]
        return torch.einsum("bkoe,bkeh,oh->bko", gates, experts, self.towers) + self.bias


def _tower(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
