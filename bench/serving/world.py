"""What both halves of the latency bench serve: a model of preset small, 7,500 items and users with full histories."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset
from onerec.model.reward import RewardModel
from schemas.packed import pack_longs
from schemas.records import History, ItemTokens

PRESET = "small"
ITEMS, USERS = 7_500, 512
SHOWN_MS = 1_700_000_000_000
"""Event time of everything."""


def shape() -> ModelConfig:
    """The preset's sizes."""
    return preset(PRESET)


def item_tokens() -> list[ItemTokens]:
    """Items 1, 2, … with distinct random semantic ids."""
    config = shape()
    keys = np.random.default_rng(0).choice(config.codes**config.levels, size=ITEMS, replace=False)
    return [
        ItemTokens(
            item_id=row + 1,
            codes=tuple(int(key) // config.codes**level % config.codes for level in reversed(range(config.levels))),
            codebook_version=1,
            duration_ms=30_000,
            tags=(),
            created_ms=SHOWN_MS,
        )
        for row, key in enumerate(keys.tolist())
    ]


def catalogue() -> CatalogueSnapshot:
    """As a reader of item-tokens has it."""
    config = shape()
    fed = Catalogue(config.levels, config.codes)
    for offset, tokens in enumerate(item_tokens()):
        fed.apply(tokens, offset + 1)
    return fed.snapshot()


def histories() -> list[History]:
    """Full histories of users 1, 2, …."""
    count, rng = shape().history_items, np.random.default_rng(1)
    return [
        History(
            user_id=user,
            history_items=pack_longs((1 + rng.choice(ITEMS, count, replace=False)).tolist()),
            history_times_ms=pack_longs(range(SHOWN_MS - count, SHOWN_MS)),
            history_labels=bytes(count),
            updated_ms=SHOWN_MS,
        )
        for user in range(1, USERS + 1)
    ]


def weights() -> dict[str, Tensor]:
    """A version's tensors: random, in bfloat16 as they are published."""
    torch.manual_seed(0)
    modules = {"onerec": OneRec(shape()), "reward": RewardModel(shape())}
    return {
        f"{prefix}.{name}": tensor.bfloat16() if tensor.is_floating_point() else tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def now_ms() -> int:
    """Wall clock."""
    return time.time_ns() // 1_000_000
