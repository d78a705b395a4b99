"""The reward model R(u, S) of a session (paper, section 3.3.1): what a user will make of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from onerec.model.attention import CrossAttention, SelfAttention, padding_bias
from onerec.model.batches import LABEL_VALUES, HistoryBatch
from onerec.model.norm import RMSNorm
from onerec.model.presets import ModelConfig

OBJECTIVES = ("swt", "vtr", "wtr", "ltr")
MEAN_WATCH_S = 104.0
"""Scale of session watch time: its mean on the KuaiRand log, so that the target 1 - exp(-t / mean) spreads evenly."""


class Rewards(NamedTuple):
    """One tensor [B] for each objective: logits from the model, probabilities after `probabilities`."""

    swt: Tensor  # session watch time
    vtr: Tensor  # share of long views
    wtr: Tensor  # any follow
    ltr: Tensor  # any like

    def probabilities(self) -> Rewards:
        """Sigmoid of each logit."""
        return Rewards(*(torch.sigmoid(logit) for logit in self))


class _HistoryKeys(NamedTuple):
    keys: Tensor  # [B, H, S, Dh]
    values: Tensor  # [B, H, S, Dh]
    bias: Tensor  # [B, 1, 1, S]


def duration_feature(durations_ms: Tensor) -> Tensor:
    """Log-duration of items, about -1..1: float32 of the input's shape."""
    return torch.log1p(durations_ms.float() / 1000.0) / 3.0 - 1.0


def watch_target(total_watch_ms: Tensor, mean_watch_s: float = MEAN_WATCH_S) -> Tensor:
    """Watch time of a session as a target in [0, 1): 1 - exp(-t / mean)."""
    return 1.0 - torch.exp(-total_watch_ms.float() / (1000.0 * mean_watch_s))


class RewardModel(nn.Module):
    """e_i = item attends the user's history; self-attention over the session; sum; one tower an objective."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.reward_d_model, config.reward_heads
        self.code_embedding = nn.Embedding(config.levels * config.codes, width)
        self.label_embedding = nn.Embedding(LABEL_VALUES, width)
        self.history_position = nn.Parameter(torch.empty(config.history_items, width))
        self.start = nn.Parameter(torch.empty(width))
        self.duration = nn.Linear(1, width)
        self.history_norm = RMSNorm(width)
        self.item_norm = RMSNorm(width)
        self.target_attention = CrossAttention(width, heads)
        self.session_norm = RMSNorm(width)
        self.session_attention = SelfAttention(width, heads)
        self.sum_norm = RMSNorm(width)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)) for _ in OBJECTIVES
        )
        for parameter in (self.code_embedding.weight, self.label_embedding.weight, self.history_position, self.start):
            nn.init.normal_(parameter, std=0.1)

    def _codes(self, codes: Tensor) -> Tensor:
        """Sum of the code embeddings [..., d] of codes int64 [..., L]."""
        rows = codes + torch.arange(self.config.levels, device=codes.device) * self.config.codes
        embedded: Tensor = self.code_embedding(rows)
        return embedded.sum(-2)

    def _history(self, history: HistoryBatch) -> _HistoryKeys:
        batch, items, _ = history.codes.shape
        lengths = history.mask.sum(1, keepdim=True)
        age = (lengths - 1 - torch.arange(items, device=lengths.device)).clamp(0, self.config.history_items - 1)
        states = self._codes(history.codes) + self.label_embedding(history.labels) + self.history_position[age]
        states = torch.cat([self.start.expand(batch, 1, -1), states], dim=1)
        bias = padding_bias(functional.pad(history.mask, (1, 0), value=True))
        return _HistoryKeys(*self.target_attention.keys_values(self.history_norm(states)), bias)

    def _aware(self, keys: _HistoryKeys, codes: Tensor, duration: Tensor) -> Tensor:
        """The items as the user sees them [B, m, d]: target attention over the history."""
        items = self._codes(codes) + self.duration(duration.unsqueeze(-1))
        aware: Tensor = items + self.target_attention.attend(self.item_norm(items), keys.keys, keys.values, keys.bias)
        return aware

    def _score(self, aware: Tensor, mask: Tensor) -> Rewards:
        """Logits [B] of sessions whose items are `aware` [B, m, d]."""
        bias = padding_bias(mask | ~mask.any(1, keepdim=True))
        session = aware + self.session_attention(self.session_norm(aware), bias)
        return self._towers((session * mask.unsqueeze(-1)).sum(1))

    def _towers(self, summed: Tensor) -> Rewards:
        pooled = self.sum_norm(summed)
        return Rewards(*(tower(pooled).squeeze(-1) for tower in self.towers))

    def forward(self, history: HistoryBatch, codes: Tensor, duration: Tensor, mask: Tensor) -> Rewards:
        """Logits [B] of sessions: codes int64 [B, m, L], `duration_feature` [B, m], mask bool [B, m]."""
        return self._score(self._aware(self._history(history), codes, duration), mask)

    def score_each(self, history: HistoryBatch, codes: Tensor, duration: Tensor) -> Rewards:
        """Logits [B, m] of every item as a session of its own: `forward` of m sessions of one item, at one's cost."""
        aware = self._aware(self._history(history), codes, duration)
        items = aware.shape[1]
        itself = torch.zeros(items, items, device=aware.device)
        itself = itself.masked_fill(~torch.eye(items, dtype=torch.bool, device=aware.device), -torch.inf)
        return self._towers(aware + self.session_attention(self.session_norm(aware), itself))

    def score_candidates(self, history: HistoryBatch, codes: Tensor, duration: Tensor, mask: Tensor) -> Rewards:
        """Logits [N] of N sessions for ONE user (history of batch 1), whose history is encoded once.

        All their items attend it as if they were one long session: items do not see one another there.
        """
        aware = self._aware(self._history(history), codes.flatten(0, 1)[None], duration.flatten()[None])
        return self._score(aware.view(*codes.shape[:2], -1), mask)


def reward_loss(logits: Rewards, targets: Rewards) -> Tensor:
    """L_RM: binary cross-entropy summed over the objectives, mean over the batch; targets in [0, 1]."""
    losses = [functional.binary_cross_entropy_with_logits(x, y) for x, y in zip(logits, targets, strict=True)]
    return torch.stack(losses).sum()


def merge(probabilities: Rewards, mean: Rewards, std: Rewards, weights: tuple[float, float, float, float]) -> Tensor:
    """One scalar reward [B]: the weighted sum of standardised objectives; mean and std as the caller measured them."""
    parts = [w * (x - m) / s.clamp(min=1e-6) for w, x, m, s in zip(weights, probabilities, mean, std, strict=True)]
    return torch.stack(parts).sum(0)
