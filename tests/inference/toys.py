"""Small models and catalogues for the engine's tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset
from schemas.records import ItemTokens


def config(**changes: Any) -> ModelConfig:
    """Preset tiny with changes."""
    return dataclasses.replace(preset("tiny"), **changes)


def model(cfg: ModelConfig, seed: int = 0, scale: float = 1.0) -> OneRec:
    """A random model; a larger `scale` makes its distributions less even. Norm gains are not all one."""
    torch.manual_seed(seed)
    made = OneRec(cfg)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.mul_(scale)
        for name, buffer in made.named_buffers():
            if name.endswith("moe.bias"):
                buffer.normal_(std=0.05)
    return made.eval()


def catalogue(cfg: ModelConfig, items: int, seed: int = 0) -> CatalogueSnapshot:
    """Items 1000.. with distinct random codes; item i is tagged "even" or "odd" and lasts i seconds."""
    rng = np.random.default_rng(seed)
    keys = rng.choice(cfg.codes**cfg.levels, size=items, replace=False)
    made = Catalogue(cfg.levels, cfg.codes)
    for row, key in enumerate(keys.tolist()):
        codes = tuple(key // cfg.codes**level % cfg.codes for level in reversed(range(cfg.levels)))
        tokens = ItemTokens(
            item_id=1000 + row,
            codes=codes,
            codebook_version=1,
            duration_ms=row * 1000,
            tags=("odd" if row % 2 else "even",),
            created_ms=0,
        )
        assert made.apply(tokens, row + 1) is None
    return made.snapshot()


def histories(cfg: ModelConfig, snapshot: CatalogueSnapshot, lengths: list[int], seed: int = 0) -> HistoryBatch:
    """Random histories of these lengths."""
    rng = np.random.default_rng(seed)
    arrays = [
        HistoryArrays(
            rng.choice(snapshot.item_ids, length), np.zeros(length, np.int64), rng.integers(0, 64, length).astype("u1")
        )
        for length in lengths
    ]
    return history_batch(arrays, snapshot, cfg)
