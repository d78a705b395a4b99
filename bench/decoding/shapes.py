"""Shapes that all sides of the decode benches share.

History of 50 items as 150 tokens, a session of 5 items with 3 codes of 256, width 256, 4 + 4 layers, 4 heads. The
feed-forward layers have as many weights as T5's 2 x 256 x 1024 within one per cent: ours are gated, 3 x 256 x 688.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.catalogue import CatalogueSnapshot, as_numpy
from onerec.model.batches import HistoryBatch
from onerec.model.narrow import narrow_dtype
from onerec.model.presets import ModelConfig
from onerec.model.sizes import decode_flops, encode_flops

BATCH = 8
LEVELS, CODES = 3, 256
HISTORY_ITEMS, SESSION_ITEMS = 50, 5
ITEMS = 7_500
TAG_SETS = 100
WIDTH, LAYERS, HEADS, HIDDEN = 256, 4, 4, 688
T5_HIDDEN = 1024
EXPERTS, ACTIVE, EXPERT_HIDDEN = 24, 2, 352


def config(*, experts: int = 1, hidden: int = HIDDEN, bf16: bool = False, dropout: float = 0.0) -> ModelConfig:
    """Dense, or with `experts` of EXPERT_HIDDEN each of which ACTIVE are chosen."""
    dense = experts == 1
    return ModelConfig(
        name="bench",
        levels=LEVELS,
        codes=CODES,
        session_items=SESSION_ITEMS,
        history_items=HISTORY_ITEMS,
        history_tokens="codes",
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        heads=HEADS,
        ffn_hidden=hidden,
        experts=experts,
        active_experts=1 if dense else ACTIVE,
        expert_hidden=hidden if dense else EXPERT_HIDDEN,
        dropout=dropout,
        bf16=bf16,
        beam_width=32,
        embedding_dim=64,
        reward_d_model=64,
    )


def flops(shape: ModelConfig, beam: int) -> int:
    """Of one request: products and attention alone."""
    wide = dataclasses.replace(shape, beam_width=beam)
    return encode_flops(wide) + decode_flops(wide)


def item_codes(items: int) -> NDArray[np.int64]:
    """Distinct random semantic ids [items, LEVELS]."""
    keys = np.random.default_rng(0).choice(CODES**LEVELS, size=items, replace=False)
    return np.stack([keys // CODES**level % CODES for level in reversed(range(LEVELS))], axis=1).astype(np.int64)


def catalogue(items: int = ITEMS) -> CatalogueSnapshot:
    """Items with random ids and `item_codes`, as the worker holds them; a hundred sets of tags."""
    rng = np.random.default_rng(2)
    return CatalogueSnapshot.of(
        rng.permutation(items) * 1_000,
        item_codes(items).astype(as_numpy(narrow_dtype(CODES - 1))),
        rng.integers(1_000, 600_000, items, dtype=np.int32),
        ([(f"tag{number}",) for number in range(TAG_SETS)], rng.integers(0, TAG_SETS, items, dtype=np.int32)),
        code_count=CODES,
        offset=items,
        codebook_version=1,
    )


def histories(batch: int, codes: NDArray[Any]) -> HistoryBatch:
    """Full histories of random items."""
    chosen = np.random.default_rng(1).integers(0, len(codes), (batch, HISTORY_ITEMS))
    marks = torch.zeros(batch, HISTORY_ITEMS, dtype=torch.int64)
    return HistoryBatch(
        torch.from_numpy(codes[chosen].astype(np.int64)), marks, torch.ones_like(marks, dtype=torch.bool)
    )
