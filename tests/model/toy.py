"""Small models, catalogues and histories for the tests of the model."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset
from onerec.model.trie import Trie


def config(**changes: Any) -> ModelConfig:
    """Preset tiny with changes."""
    return dataclasses.replace(preset("tiny"), **changes)


def model(seed: int = 0, **changes: Any) -> OneRec:
    """A model in double precision: what is exact in theory is exact to 1e-12 then."""
    torch.manual_seed(seed)
    made: OneRec = OneRec(config(**changes)).double()
    return made


def codes(count: int = 60, seed: int = 0, code_count: int = 8, levels: int = 3) -> Tensor:
    """Distinct semantic ids [N, L] in random order; N is at most `count`."""
    generator = torch.Generator().manual_seed(seed)
    drawn: Tensor = torch.unique(torch.randint(0, code_count, (count, levels), generator=generator), dim=0)
    return drawn[torch.randperm(len(drawn), generator=generator)]


def trie(count: int = 60, seed: int = 0) -> Trie:
    """A trie over `codes`."""
    return Trie.build(codes(count, seed), 8)


def history(lengths: list[int], width: int, of: Trie, seed: int = 0) -> HistoryBatch:
    """Random histories of these lengths; what stands behind them, in the padding, is random too."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), width)
    leaves = torch.randint(0, len(of), shape, generator=generator)
    labels = torch.randint(0, 64, shape, generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return HistoryBatch(of.codes[leaves], labels, mask)


def sessions(batch: int, items: int, of: Trie, seed: int = 0) -> Tensor:
    """Random leaves [B, m]."""
    return torch.randint(0, len(of), (batch, items), generator=torch.Generator().manual_seed(seed))


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """Equal but for the order of additions in double precision."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
