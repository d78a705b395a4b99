"""Reward models: the independent judge of all rows, and the one that makes the rows' preference pairs.

Both are trained alike, each on its own side of the split: a pass over history sessions, which know long views and
likes, then sessions of the log, which also know watch time and follows. Beside the session they learn each exposure of
it as a session of its own: labels of whole sessions tell mostly who the user is, and a model that has seen nothing else
orders the exposures of one session hardly better than chance.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from evaluation.baselines.training import CPU, rate_share
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
CHUNK = 128
"""Users whose sessions are rated together where that is not on CPU."""


def train_reward(
    side: Side, config: ModelConfig, epochs: int, history_samples: int, seed: int, *, device: torch.device = CPU
) -> RewardModel:
    """A reward model of one side: `history_samples` sessions of histories, then `epochs` over those of the log.

    Raises CheckFailedError where a loss is not finite.
    """
    torch.manual_seed(seed)
    model = RewardModel(config).to(device).train()
    _from_histories(model, side, config, history_samples, seed)
    _from_log(model, side, config, epochs, seed)
    return model.eval()


def _from_histories(model: RewardModel, side: Side, config: ModelConfig, count: int, seed: int) -> None:
    histories = [side.history(row) for row in range(len(side.past))]
    samples = cut(histories, side.catalogue, config)
    source = Source(samples, SeedSettings(batch=2 * BATCH), seed)
    steps = max(1, count // (2 * BATCH))

    def loss() -> Tensor:
        batch = sent(sample_batch(samples, source.reward(), side.catalogue, config), device_of(model))
        return history_reward_loss(model, batch) + exposure_loss(model, batch)

    _learn(model, loss, steps, "histories")


def _from_log(model: RewardModel, side: Side, config: ModelConfig, epochs: int, seed: int) -> None:
    sessions, random = side.sessions(), np.random.default_rng(seed)
    order = [row for _ in range(epochs) for row in random.permutation(len(sessions)).tolist()]
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    following = iter(batches)

    def loss() -> Tensor:
        rows = [sessions[row] for row in next(following)]
        batch = sent(session_batch(rows, side.catalogue, config, TrainOn.ALL), device_of(model))
        return session_reward_loss(model, batch) + exposure_loss(model, batch)

    _learn(model, loss, len(batches), "sessions of the log")


def exposure_loss(model: RewardModel, batch: SessionBatch) -> Tensor:
    """Cross-entropy of long view and like of each exposure, scored as a session of its own; mean over exposures."""
    logits = model.score_each(batch.history, batch.codes, duration_feature(batch.durations_ms))
    known = ((logits.vtr, Label.LONG_VIEW), (logits.ltr, Label.LIKE))
    marked = [(batch.labels & int(label) != 0).to(own.dtype) for own, label in known]
    losses = [_exposure_loss(own, wanted, batch.mask) for (own, _), wanted in zip(known, marked, strict=True)]
    return torch.stack(losses).sum()


def _exposure_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean over what `mask` bool [B, m] shows; a GPU is not asked how much that is."""
    if mask.device.type == "cpu":
        return functional.binary_cross_entropy_with_logits(logits[mask], targets[mask])
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def _learn(model: RewardModel, loss_of: Any, steps: int, what: str) -> None:
    optimizer, losses = adamw(model, 0.0, TrainerSettings()), list[Tensor]()
    for step in range(steps):
        loss = loss_of()
        losses.append(loss.detach())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_share(step / steps)
        optimizer.step()
    last = float(torch.stack(losses[-20:]).mean()) if losses else 0.0  # once not finite, it stays so
    if not np.isfinite(last):
        raise CheckFailedError(f"The reward model's loss is {last}.", "Lower its learning rate.")
    LOG.info("reward model: %d steps on %s, loss %.4f", steps, what, last)


@torch.inference_mode()
def probabilities(model: RewardModel, history: HistoryBatch, sessions: Longs, catalogue: CatalogueSnapshot) -> Rewards:
    """Predictions [N], on CPU, for sessions of leaves [N, m] of one user."""
    codes, duration, whole = _described(sessions, catalogue, device_of(model))
    logits = model.score_candidates(history.to(codes.device), codes, duration, whole)
    return Rewards(*(values.cpu() for values in logits.probabilities()))


@torch.inference_mode()
def rated(model: RewardModel, history: HistoryBatch, sessions: Longs, catalogue: CatalogueSnapshot) -> Rewards:
    """Predictions [B, N], on CPU, for sessions of leaves [B, N, m] of B users; NaN where a session is not whole.

    On CPU user after user, elsewhere all at once.
    """
    batch, count, _ = sessions.shape
    device = device_of(model)
    known = np.asarray((sessions >= 0).all(2))
    found = Rewards(*(torch.full((batch, count), torch.nan) for _ in OBJECTIVES))
    if device.type == "cpu":
        for row in np.flatnonzero(known.any(1)).tolist():
            one = HistoryBatch(*(part[row : row + 1] for part in (history.codes, history.labels, history.mask)))
            rewards = probabilities(model, one, sessions[row, known[row]], catalogue)
            for values, some in zip(found, rewards, strict=True):
                values[row, torch.from_numpy(known[row])] = some
        return found
    near = history.to(device)
    each = HistoryBatch(*(part.repeat_interleave(count, 0) for part in (near.codes, near.labels, near.mask)))
    logits: Rewards = model(each, *_described(sessions.clip(0).reshape(batch * count, -1), catalogue, device))
    missing = torch.from_numpy(~known)
    each_of = (own.cpu().view(batch, count) for own in logits.probabilities())
    return Rewards(*(own.masked_fill(missing, torch.nan) for own in each_of))


def _described(sessions: Longs, catalogue: CatalogueSnapshot, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [S, m, L], duration features [S, m] and a mask [S, m] of whole sessions [S, m]."""
    codes = torch.from_numpy(catalogue.codes_of(sessions)).to(device)
    durations_ms = torch.from_numpy(catalogue.durations_of(sessions)).to(device)
    return codes, duration_feature(durations_ms), torch.ones(sessions.shape, dtype=torch.bool, device=device)


def sent(batch: SessionBatch, device: torch.device) -> SessionBatch:
    """A batch on a device; the host does not wait until it is there."""
    if device.type == "cpu":
        return batch

    def send(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True)

    columns = {name: send(value) for name in batch.__slots__ if isinstance(value := getattr(batch, name), Tensor)}
    history = HistoryBatch(send(batch.history.codes), send(batch.history.labels), send(batch.history.mask))
    return dataclasses.replace(batch, history=history, **columns)


def device_of(model: nn.Module) -> torch.device:
    """Where a model lies."""
    return next(model.parameters()).device


def judged(judge: RewardModel, world: World, config: ModelConfig, sessions: Longs) -> dict[str, NDArray[np.float64]]:
    """By objective the judge's prediction [C, N] for sessions [C, N, m] of the rows' leaves; NaN for missing ones."""
    return predicted(judge, world, world.judge.catalogue, config, sessions)


def predicted(
    model: RewardModel, world: World, own: CatalogueSnapshot, config: ModelConfig, sessions: Longs
) -> dict[str, NDArray[np.float64]]:
    """The same by a reward model that knows the semantic ids of `own`."""
    leaves = np.where(sessions >= 0, own.leaves(world.rows.items.item_ids)[sessions], -1)
    size, parts = 1 if device_of(model).type == "cpu" else CHUNK, list[Rewards]()
    for first in range(0, len(sessions), size):
        users = world.cases.users[first : first + size].tolist()
        history = history_batch([world.rows.history(row) for row in users], own, config)
        parts.append(rated(model, history, leaves[first : first + size], own))
    columns = zip(*parts, strict=True)
    return {name: torch.cat(values).double().numpy() for name, values in zip(OBJECTIVES, columns, strict=True)}
