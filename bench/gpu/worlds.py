"""Random catalogues, histories and sessions of any configuration, and models made on a device."""

from __future__ import annotations

import numpy as np
import torch

from onerec.catalogue import CatalogueSnapshot, as_numpy
from onerec.model.batches import HistoryBatch
from onerec.model.narrow import narrow_dtype
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from trainer.batches import SessionBatch


def model(config: ModelConfig, device: torch.device) -> OneRec:
    """Random weights, drawn on the device: preset 1b takes long on a CPU."""
    torch.manual_seed(0)
    with device:
        return OneRec(config)


def catalogue(config: ModelConfig, items: int) -> CatalogueSnapshot:
    """At most `items` items with distinct random ids."""
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.unique(rng.integers(0, config.codes**config.levels, items)))
    codes = np.stack([keys // config.codes**level % config.codes for level in reversed(range(config.levels))], axis=1)
    return CatalogueSnapshot.of(
        np.arange(len(keys), dtype=np.int64),
        codes.astype(as_numpy(narrow_dtype(config.codes - 1))),
        np.full(len(keys), 30_000, np.int32),
        ([()], np.zeros(len(keys), np.int32)),
        code_count=config.codes,
        offset=len(keys),
        codebook_version=1,
    )


def histories(config: ModelConfig, known: CatalogueSnapshot, batch: int) -> HistoryBatch:
    """Full histories of random items."""
    leaves = np.random.default_rng(1).integers(0, len(known), (batch, config.history_items))
    marks = torch.zeros(leaves.shape, dtype=torch.int64)
    return HistoryBatch(torch.from_numpy(known.codes_of(leaves)), marks, torch.ones_like(marks, dtype=torch.bool))


def sessions(config: ModelConfig, known: CatalogueSnapshot, batch: int) -> SessionBatch:
    """Full histories and full sessions, all of whose items are learned."""
    leaves = torch.from_numpy(np.random.default_rng(2).integers(0, len(known), (batch, config.session_items)))
    return SessionBatch(
        history=histories(config, known, batch),
        leaves=leaves,
        codes=known.trie.codes_of(leaves),
        labels=torch.ones_like(leaves),
        weight=torch.ones(leaves.shape),
        durations_ms=torch.zeros_like(leaves),
        watch_ms=torch.zeros(batch, dtype=torch.int64),
    )
