"""The one training loop of all sequence models, and what a model has to offer it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from evaluation.baselines.sequences import SequenceBatch, Sequences, epoch
from onerec.errors import CheckFailedError

LOG = logging.getLogger(__name__)
CLIP_NORM = 1.0
WARMUP_SHARE = 0.05
FINAL_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Adam with decoupled weight decay; the rate rises over 5 % of the steps, then falls linearly to 2 %."""

    epochs: int = 20
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


class Recommends(Protocol):
    """A model that scores the whole catalogue for each user."""

    def scores(self, batch: SequenceBatch) -> Tensor:
        """Float32 [B, N] of every item as the next one: logits, or logarithms of counts."""
        ...


class SequenceModel(nn.Module):
    """A sequence model: `loss` to train it by, `scores` to rank by, `length` exposures as input."""

    length: int

    def loss(self, batch: SequenceBatch) -> Tensor | None:
        """Mean loss of a batch; None where it holds nothing to learn."""
        raise NotImplementedError

    def scores(self, batch: SequenceBatch) -> Tensor:
        """As `Recommends.scores`."""
        raise NotImplementedError


def train(make: Callable[[], SequenceModel], sequences: Sequences, settings: Training, seed: int) -> SequenceModel:
    """Make a model and train it: a function of the sequences, the settings and the seed.

    Raises CheckFailedError where the loss is not finite.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = make().train()
    optimizer = AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True)
    useful = int((np.diff(sequences.starts) >= 2).sum())
    steps, step = settings.epochs * -(-useful // settings.batch), 0
    for number in range(settings.epochs):
        losses = []
        for batch in epoch(sequences, model.length + 1, settings.batch, random):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_share(step / steps)
            step += 1
            loss = model.loss(batch)
            if loss is not None:
                losses.append(_learn(model, loss, optimizer))
        LOG.info("%s: epoch %d of %d, loss %.4f", type(model).__name__, number + 1, settings.epochs, np.mean(losses))
    return model.eval()


def rate_share(share: float) -> float:
    """Share of the full learning rate at this share of the steps."""
    if share < WARMUP_SHARE:
        return max(share, 1e-3) / WARMUP_SHARE
    return max(FINAL_SHARE, 1.0 - (share - WARMUP_SHARE) / (1.0 - WARMUP_SHARE))


def _learn(model: nn.Module, loss: Tensor, optimizer: AdamW) -> float:
    value = float(loss.detach())
    if not np.isfinite(value):
        raise CheckFailedError(f"The loss of {type(model).__name__} is {value}.", "Lower its learning rate.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    clip_grad_norm_(model.parameters(), CLIP_NORM, foreach=True)
    optimizer.step()
    return value
