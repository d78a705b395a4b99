"""Figure 6: models of several widths, trained alike: loss and accuracy by level on users that none has seen.

Every width trains as Table 1's OneRec. The users are the judge's of Table 1; sessions are the newest of their
histories, with the rows' semantic ids. Loss is next-token loss on positives, mean per code; a code counts as right
where the model gives it the highest probability among those that may stand there, after the right codes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.table1.generative import train_generative
from evaluation.table1.kept import Context
from evaluation.table1.rows import parameters_of
from onerec.model.likelihood import code_log_probs
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from trainer.samples import Samples, cut, sample_batch

CHUNK = 256
HELD_OUT_SEED = 20220503
EXPONENTS = np.linspace(0.05, 2.0, 400)


def config_of(width: int, config: ModelConfig) -> ModelConfig:
    """A configuration of another width; layers, heads, experts, ids and history stay."""
    share = width / config.d_model
    return dataclasses.replace(
        config,
        name=f"{config.name}-{width}",
        d_model=width,
        ffn_hidden=int(config.ffn_hidden * share),
        expert_hidden=int(config.expert_hidden * share),
        bf16_seed=False,
    )


def point(at: Context, width: int, samples: int, held_out: int) -> dict[str, Any]:
    """One model: parameters, loss, and loss and accuracy by level."""
    config = config_of(width, at.config)
    training = dataclasses.replace(at.form.onerec, samples=samples)
    model = train_generative(at.world.rows, config, training, at.seed, at.device)
    return {"width": width, "parameters": parameters_of(model), "samples": samples, **measured(model, at, held_out)}


@torch.inference_mode()
def measured(model: OneRec, at: Context, held_out: int) -> dict[str, Any]:
    """On the positives of the newest sessions of the judge's users."""
    catalogue, config = at.world.rows.catalogue, model.config
    histories = [at.world.judge.history(row) for row in range(len(at.world.judge.past))]
    samples = cut(histories, catalogue, config)
    trie = catalogue.trie.to(at.device)
    losses = [list[torch.Tensor]() for _ in range(config.levels)]
    right = [list[torch.Tensor]() for _ in range(config.levels)]
    rows = newest(samples, held_out)
    for first in range(0, len(rows), CHUNK):
        batch = sample_batch(samples, rows[first : first + CHUNK], catalogue, config)
        memory = model.encode(batch.history.to(at.device))
        leaves, positives = batch.leaves.to(at.device), (batch.weight > 0).to(at.device)
        for level, (every, own) in enumerate(code_log_probs(model, memory, leaves, trie, positives)):
            losses[level].append(-every.gather(1, own[:, None]).squeeze(1).cpu())
            right[level].append((every.argmax(1) == own).float().cpu())
    loss = [float(torch.cat(parts).mean()) for parts in losses]
    return {
        "sessions": len(rows),
        "positives": sum(len(part) for part in losses[0]),
        "loss": float(np.mean(loss)),
        "loss_by_level": loss,
        "accuracy_by_level": [float(torch.cat(parts).mean()) for parts in right],
    }


def newest(samples: Samples, most: int) -> NDArray[np.int64]:
    """The newest session of users that have a positive in it, drawn by a fixed seed, the longest histories first."""
    usable = np.flatnonzero((samples.age == 0) & (samples.positives > 0))
    rows = np.random.default_rng(HELD_OUT_SEED).permutation(usable)[:most]
    return rows[np.argsort(-samples.lengths[rows], kind="stable")]


def law(parameters: list[float], losses: list[float]) -> dict[str, float] | None:
    """L(N) = E + A / N^alpha by least squares with E and A not negative; None for fewer than four models."""
    if len(parameters) < 4:
        return None
    n, wanted = np.array(parameters, dtype=np.float64), np.array(losses)
    best: dict[str, float] | None = None
    for alpha in EXPONENTS.tolist():
        x = (n / n[0]) ** -alpha
        slope, offset = np.polyfit(x, wanted, 1)
        if slope < 0:
            slope, offset = 0.0, float(wanted.mean())
        elif offset < 0:
            slope, offset = float(x @ wanted / (x @ x)), 0.0
        residual = float(np.sqrt(np.mean((slope * x + offset - wanted) ** 2)))
        if best is None or residual < best["residual"]:
            best = {"E": float(offset), "A": float(slope * n[0] ** alpha), "alpha": alpha, "residual": residual}
    return best
