"""The one training loop of all sequence models, and what a model has to offer it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from evaluation.baselines.recorded import RecordedSteps
from evaluation.baselines.sequences import PADDING, SequenceBatch, Sequences, epoch, sequence_batch
from onerec.errors import CheckFailedError

LOG = logging.getLogger(__name__)
CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
WIDTHS = 10
"""On a GPU batches are padded to a multiple of so many exposures, so that few graphs are recorded."""
CPU = torch.device("cpu")
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


def train(
    make: Callable[[], SequenceModel], sequences: Sequences, settings: Training, seed: int, device: torch.device = CPU
) -> SequenceModel:
    """Make a model and train it: on one device a function of the sequences, the settings and the seed.

    Devices give the same batches at the same rates; they draw dropout from generators of their own.
    Raises CheckFailedError where the loss is not finite.
    """
    torch.manual_seed(seed)
    model = make().train()
    if device.type == "cpu":
        _train(model, sequences, settings, np.random.default_rng(seed))
    else:
        _train_recorded(model.to(device), sequences, settings, np.random.default_rng(seed), device)
    return model.eval()


def _train(model: SequenceModel, sequences: Sequences, settings: Training, random: np.random.Generator) -> None:
    optimizer = AdamW(model.parameters(), lr=0.0, betas=BETAS, weight_decay=settings.weight_decay, fused=True)
    useful = int((np.diff(sequences.starts) >= 2).sum())
    steps, step = settings.epochs * -(-useful // settings.batch), 0
    for number in range(settings.epochs):
        losses = []
        for users in epoch(sequences, model.length + 1, settings.batch, random):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_share(step / steps)
            step += 1
            loss = model.loss(sequence_batch(sequences, users, model.length + 1))
            if loss is not None:
                losses.append(_learn(model, loss, optimizer))
        LOG.info("%s: epoch %d of %d, loss %.4f", type(model).__name__, number + 1, settings.epochs, np.mean(losses))


def _train_recorded(
    model: SequenceModel, sequences: Sequences, settings: Training, random: np.random.Generator, device: torch.device
) -> None:
    """The same steps on a GPU: all sequences lie there, and a batch is told by its users."""
    table = _with_nobody(sequence_batch(sequences, np.arange(len(sequences)), model.length + 1)).to(device)
    lengths, nobody = np.minimum(np.diff(sequences.starts), model.length + 1), len(sequences)
    name, useful = type(model).__name__, int((lengths >= 2).sum())
    steps, step = settings.epochs * -(-useful // settings.batch), 0

    def loss(width: int, users: Tensor) -> Tensor:
        found = model.loss(_part(table, users, width))
        assert found is not None, "on a GPU nobody looks"
        return found

    first = torch.full((settings.batch,), nobody, device=device)
    decay = settings.weight_decay
    recorded = RecordedSteps(model, loss, [first], betas=BETAS, weight_decay=decay, clip_norm=CLIP_NORM)
    for number in range(settings.epochs):
        batches = list(epoch(sequences, model.length + 1, settings.batch, random))
        rows = np.full((len(batches), settings.batch), nobody)
        for row, users in zip(rows, batches, strict=True):
            row[: len(users)] = users
        for users, own in zip(torch.from_numpy(rows).to(device), batches, strict=True):
            width = min(-(-int(lengths[own].max()) // WIDTHS) * WIDTHS, table.tokens.shape[1])
            recorded.step(width, [users], settings.learning_rate * rate_share(step / steps))
            step += 1
        LOG.info("%s: epoch %d of %d, loss %.4f", name, number + 1, settings.epochs, recorded.mean_loss(name))


def _with_nobody(batch: SequenceBatch) -> SequenceBatch:
    """One more row without exposures, which fills up batches."""
    assert batch.labels is not None
    columns = ((batch.tokens, PADDING), (batch.marks, 0), (batch.watch_ms, -1), (batch.labels, 0))
    return SequenceBatch(*(functional.pad(column, (0, 0, 0, 1), value=fill) for column, fill in columns))


def _part(table: SequenceBatch, users: Tensor, width: int) -> SequenceBatch:
    """The first `width` columns of some rows."""
    assert table.labels is not None
    columns = (table.tokens, table.marks, table.watch_ms, table.labels)
    return SequenceBatch(*(column[users, :width] for column in columns))


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
