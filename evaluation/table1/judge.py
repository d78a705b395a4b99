"""Reward models: the independent judge of all rows, and the one that makes the rows' preference pairs.

Both are trained alike, each on its own side of the split: a pass over history sessions, which know long views and
likes, then sessions of the log, which also know watch time and follows. Beside the session they learn each exposure of
it as a session of its own: labels of whole sessions tell mostly who the user is, and a model that has seen nothing else
orders the exposures of one session hardly better than chance.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from evaluation.baselines.training import rate_share
from evaluation.table1.candidates import Longs
from evaluation.table1.world import Side, World
from onerec.catalogue import CatalogueSnapshot
from onerec.errors import CheckFailedError
from onerec.features import history_batch
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from onerec.model.reward import OBJECTIVES, RewardModel, Rewards, duration_feature
from onerec.settings import SeedSettings, TrainerSettings, TrainOn
from schemas.labels import Label
from trainer.batches import SessionBatch, session_batch
from trainer.objectives import history_reward_loss, session_reward_loss
from trainer.samples import Source, cut, sample_batch
from trainer.state import adamw

LOG = logging.getLogger(__name__)
BATCH = 64
LEARNING_RATE = 2e-3


def train_reward(side: Side, config: ModelConfig, epochs: int, history_samples: int, seed: int) -> RewardModel:
    """A reward model of one side: `history_samples` sessions of histories, then `epochs` over those of the log."""
    torch.manual_seed(seed)
    model = RewardModel(config).train()
    _from_histories(model, side, config, history_samples, seed)
    _from_log(model, side, config, epochs, seed)
    return model.eval()


def _from_histories(model: RewardModel, side: Side, config: ModelConfig, count: int, seed: int) -> None:
    histories = [side.history(row) for row in range(len(side.past))]
    samples = cut(histories, side.catalogue, config)
    source = Source(samples, SeedSettings(batch=2 * BATCH), seed)
    steps = max(1, count // (2 * BATCH))

    def loss() -> Tensor:
        batch = sample_batch(samples, source.reward(), side.catalogue, config)
        return history_reward_loss(model, batch) + exposure_loss(model, batch)

    _learn(model, loss, steps, "histories")


def _from_log(model: RewardModel, side: Side, config: ModelConfig, epochs: int, seed: int) -> None:
    sessions, random = side.sessions(), np.random.default_rng(seed)
    order = [row for _ in range(epochs) for row in random.permutation(len(sessions)).tolist()]
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    following = iter(batches)

    def loss() -> Tensor:
        rows = [sessions[row] for row in next(following)]
        batch = session_batch(rows, side.catalogue, config, TrainOn.ALL)
        return session_reward_loss(model, batch) + exposure_loss(model, batch)

    _learn(model, loss, len(batches), "sessions of the log")


def exposure_loss(model: RewardModel, batch: SessionBatch) -> Tensor:
    """Cross-entropy of long view and like of each exposure, scored as a session of its own; mean over exposures."""
    logits = model.score_each(batch.history, batch.codes, duration_feature(batch.durations_ms))
    known = ((logits.vtr, Label.LONG_VIEW), (logits.ltr, Label.LIKE))
    losses = [
        functional.binary_cross_entropy_with_logits(
            own[batch.mask], (batch.labels[batch.mask] & int(label) != 0).to(own.dtype)
        )
        for own, label in known
    ]
    return torch.stack(losses).sum()


def _learn(model: RewardModel, loss_of: Any, steps: int, what: str) -> None:
    optimizer, losses = adamw(model, 0.0, TrainerSettings()), []
    for step in range(steps):
        loss = loss_of()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise CheckFailedError(f"The reward model's loss is {losses[-1]}.", "Lower its learning rate.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_share(step / steps)
        optimizer.step()
    LOG.info("reward model: %d steps on %s, loss %.4f", steps, what, np.mean(losses[-20:]))


@torch.inference_mode()
def probabilities(model: RewardModel, history: HistoryBatch, sessions: Longs, catalogue: CatalogueSnapshot) -> Rewards:
    """Predictions [N] for sessions of leaves [N, m] of one user."""
    codes = torch.from_numpy(catalogue.codes_of(sessions))
    duration = duration_feature(torch.from_numpy(catalogue.durations_of(sessions)))
    whole = torch.ones(sessions.shape, dtype=torch.bool)
    return model.score_candidates(history, codes, duration, whole).probabilities()


def judged(judge: RewardModel, world: World, config: ModelConfig, sessions: Longs) -> dict[str, NDArray[np.float64]]:
    """By objective the judge's prediction [C, N] for sessions [C, N, m] of the rows' leaves; NaN for missing ones."""
    return predicted(judge, world, world.judge.catalogue, config, sessions)


def predicted(
    model: RewardModel, world: World, own: CatalogueSnapshot, config: ModelConfig, sessions: Longs
) -> dict[str, NDArray[np.float64]]:
    """The same by a reward model that knows the semantic ids of `own`."""
    leaves = own.leaves(world.rows.items.item_ids)[sessions]
    found = {name: np.full(sessions.shape[:2], np.nan) for name in OBJECTIVES}
    for case, row in enumerate(world.cases.users.tolist()):
        whole = np.flatnonzero((sessions[case] >= 0).all(1))
        if len(whole):
            history = history_batch([world.rows.history(row)], own, config)
            rewards = probabilities(model, history, leaves[case, whole], own)
            for name, values in zip(OBJECTIVES, rewards, strict=True):
                found[name][case, whole] = values.numpy()
    return found
