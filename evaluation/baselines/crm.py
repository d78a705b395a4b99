"""CRM, the Controllable Retrieval Model (arXiv 2412.13844): watch time as a condition of the user tower.

Two towers. In training the condition is the watch time that the user then gave the item; at inference it is chosen,
so one model serves lists that aim at short or at long views. Every exposure is a target, since the condition says
how it ended. The transformer variant reads pairs of watch time and item, as a decision transformer does.
The paper discloses neither sizes nor the encoding of the condition; here it is a bucket.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.baselines.attributes import AttributeEmbedding, ItemAttributes
from evaluation.baselines.sequences import NONE, POSITIVE, SequenceBatch, shifted
from evaluation.baselines.targets import cross_entropy, nothing
from evaluation.baselines.training import SequenceModel
from evaluation.baselines.transformer import ExposureEmbedding, Trunk, TrunkSettings, newest

UNKNOWN, SHORT, LONG = 0, 1, 2
"""Conditions where the past tells no time: nothing known, not watched long, watched long."""
EDGES_MS = (3_000, 9_000, 18_000, 40_000, 90_000)
"""Watch times that part the other conditions, 3 to 8."""
CONDITIONS = 3 + len(EDGES_MS) + 1
Users = Literal["pooled", "transformer"]


def conditions(batch: SequenceBatch) -> Tensor:
    """The condition int64 [B, n] that each exposure fulfilled."""
    timed = 3 + torch.stack([batch.watch_ms >= edge for edge in EDGES_MS]).sum(0)
    untimed = torch.where(batch.marks == POSITIVE, LONG, SHORT)
    found = torch.where(batch.watch_ms >= 0, timed, untimed)
    return torch.where(batch.marks == NONE, UNKNOWN, found)


class CRM(SequenceModel):
    """`condition` is what `scores` asks for; it may be set after training."""

    def __init__(self, attributes: ItemAttributes, settings: TrunkSettings, users: Users) -> None:
        super().__init__()
        width = settings.width
        self.length, self.users, self.condition = settings.length, users, LONG
        self.embedding = ExposureEmbedding(len(attributes.table), width)
        self.features = AttributeEmbedding(attributes, width)
        self.wish = nn.Embedding(CONDITIONS, width)
        self.trunk = Trunk(settings, causal=True) if users == "transformer" else None
        self.user_tower = _tower(2 * width, width, settings)
        self.item_tower = _tower(2 * width, width, settings)
        self.temperature = nn.Parameter(torch.tensor(2.0))  # its exponent; the towers' outputs have length 1
        nn.init.normal_(self.wish.weight, std=0.1)

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """Softmax over the catalogue at every exposure, given the watch time that it then had."""
        inputs, targets, _ = shifted(batch)
        wanted = inputs.mask
        if nothing(wanted):
            return None
        states = torch.cat([self._states(inputs), self.wish(conditions(batch)[:, 1:])], dim=-1)
        return cross_entropy(self._users(states), self._items(), targets, wanted)

    def scores(self, batch: SequenceBatch) -> Tensor:
        """Logits [B, N] under `condition`."""
        wishes = self.wish(torch.full((len(batch),), self.condition, device=batch.tokens.device))
        return self._logits(torch.cat([newest(self._states(batch), batch), wishes], dim=-1))

    def _states(self, batch: SequenceBatch) -> Tensor:
        """What is known of the user up to each exposure, [B, n, d]."""
        exposures = self.embedding(batch.tokens, batch.marks) + self.wish(conditions(batch))
        if self.trunk is not None:
            states: Tensor = self.trunk(exposures, batch.mask)
            return states
        mask = batch.mask.unsqueeze(-1)
        mean: Tensor = (exposures * mask).cumsum(1) / mask.cumsum(1).clamp(min=1)
        return mean

    def _logits(self, states: Tensor) -> Tensor:
        """[..., N] of states with the wish beside them [..., 2 d]."""
        return self._users(states) @ self._items().t()

    def _users(self, states: Tensor) -> Tensor:
        """The user tower's outputs [..., d], with the temperature."""
        users: Tensor = functional.normalize(self.user_tower(states), dim=-1) * self.temperature.exp()
        return users

    def _items(self) -> Tensor:
        """The item tower's outputs [N, d]."""
        items = self.item_tower(torch.cat([self.embedding.catalogue(), self.features()], dim=-1))
        return functional.normalize(items, dim=-1)


def _tower(inputs: int, width: int, settings: TrunkSettings) -> nn.Sequential:
    hidden = settings.hidden
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, width))
