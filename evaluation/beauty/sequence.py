"""SASRec with softmax over all items, tuned on this data's validation item: the item-wise model to compare with."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from evaluation.baselines.sasrec import SASRec
from evaluation.baselines.sequences import POSITIVE, SequenceBatch, shifted
from evaluation.baselines.targets import cross_entropy
from evaluation.baselines.training import BETAS, CLIP_NORM, rate_share
from evaluation.baselines.transformer import TrunkSettings
from evaluation.beauty.accuracy import Scores, figures, itemwise
from evaluation.beauty.dataset import Beauty, windows
from evaluation.beauty.looks import Best, looks_at

LOG = logging.getLogger(__name__)
TRUNK = TrunkSettings(length=50, width=128, layers=2, heads=2, hidden=256, dropout=0.5, input_norm=True)
PARTS = 6
"""Of a batch, sequences of like length together: of a batch as wide as its longest one a seventh would be filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRecipe:
    """How long and by which steps."""

    epochs: int = 20
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    looks: int = 6


def as_batch(histories: Tensor) -> SequenceBatch:
    """Histories [B, n] padded with -1: every item was wanted."""
    tokens = histories.long() + 1
    marks = torch.where(tokens > 0, POSITIVE, 0)
    return SequenceBatch(tokens, marks, torch.full_like(tokens, -1))


def train_sasrec(
    beauty: Beauty, recipe: SequenceRecipe, seed: int, device: torch.device
) -> tuple[SASRec, dict[str, Any]]:
    """The model of the best epoch looked at, and how it went."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    starts, items = beauty.training()
    ends, begins = starts[1:], np.maximum(starts[:-1], starts[1:] - TRUNK.length - 1)
    sequences = torch.from_numpy(windows(items, begins, ends, TRUNK.length + 1)).to(device)
    users = np.flatnonzero(ends - begins >= 2)
    model = SASRec(beauty.item_count, TRUNK, "softmax").to(device).train()
    optimizer = AdamW(model.parameters(), lr=0.0, betas=BETAS, weight_decay=recipe.weight_decay, fused=True)
    looks = looks_at(recipe.epochs, recipe.looks)
    steps, step, started_s = recipe.epochs * -(-len(users) // recipe.batch), 0, time.monotonic()
    best = Best()
    for epoch in range(1, recipe.epochs + 1):
        rows = torch.from_numpy(random.permutation(users)).to(device)
        for chosen in torch.split(rows, recipe.batch):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate_share(step / steps)
            step += 1
            loss = softmax_loss(model, sequences[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), CLIP_NORM, foreach=True)
            optimizer.step()
        if epoch in looks:
            value = figures(itemwise(scorer(model.eval()), beauty, "validation", TRUNK.length, device)["unseen"])
            LOG.info("sasrec: epoch %d of %d, validation %.4f", epoch, recipe.epochs, value["recall_at_10"])
            best.look(epoch, value["recall_at_10"], model)
            model.train()
    best.restore(model)
    history = {
        "epochs": recipe.epochs,
        "best_epoch": best.epoch,
        "validation": best.value,
        "seconds": time.monotonic() - started_s,
    }
    return model.eval(), history


def softmax_loss(model: SASRec, sequences: Tensor) -> Tensor:
    """Mean over all positions that have a target, of sequences [B, n] padded with -1, each of two items at least."""
    lengths = (sequences >= 0).sum(1)
    found: list[tuple[Tensor, Tensor]] = []
    for part in torch.tensor_split(torch.argsort(lengths), PARTS):
        if len(part):
            inputs, targets, wanted = shifted(as_batch(sequences[part, : int(lengths[part].max())]))
            states = model.trunk(model.embedding(inputs.tokens, inputs.marks), inputs.mask)
            found.append((states[wanted], targets[wanted]))
    states, targets = (torch.cat(each).unsqueeze(0) for each in zip(*found, strict=True))
    return cross_entropy(states, model.embedding.catalogue(), targets, torch.ones_like(targets, dtype=torch.bool))


def scorer(model: SASRec) -> Scores:
    """Its scores for histories."""
    return lambda histories: model.scores(as_batch(histories))
