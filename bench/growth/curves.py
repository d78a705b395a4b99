"""What is made larger, one size at a time, and how fast its cost may grow.

Preset small's width and layers with history tokens of codes, dense but for the experts' curve. `bound` is the largest
exponent that the algorithm explains; measured ones stay below it while fixed costs weigh, and above it something is
wrong, or a cache has overflowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bench.decoding import shapes
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig

WIDTH, LAYERS, HIDDEN, HISTORY, SESSION, BATCH, BEAM, ITEMS = 128, 2, 256, 50, 5, 4, 32, 7_500
SLACK = 0.25
"""Of an exponent: noise, and caches that overflow."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: a model, its requests and a catalogue."""

    shape: ModelConfig
    beam: int = BEAM
    batch: int = BATCH
    items: int = ITEMS

    def catalogue(self) -> CatalogueSnapshot:
        """Random semantic ids."""
        return shapes.catalogue(self.items)

    def histories(self, catalogue: CatalogueSnapshot) -> HistoryBatch:
        """Full ones of random items."""
        size = (self.batch, self.shape.history_items)
        chosen = np.random.default_rng(1).integers(0, len(catalogue.codes), size)
        marks = torch.zeros(size, dtype=torch.int64)
        return HistoryBatch(torch.from_numpy(catalogue.codes[chosen]), marks, torch.ones_like(marks, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class Curve:
    """Cost against one size, all else fixed."""

    name: str
    unit: str
    sizes: tuple[int, ...]
    brief: tuple[int, ...]
    bound: float
    why: str
    """Why the cost may grow so."""
    point: Callable[[int], Point]

    def chosen(self, *, brief: bool) -> Sequence[int]:
        """The sizes to measure."""
        return self.brief if brief else self.sizes


def shape(**changes: int) -> ModelConfig:
    """Small, dense."""
    base = dataclasses.replace(
        shapes.config(hidden=HIDDEN),
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        ffn_hidden=HIDDEN,
        history_items=HISTORY,
        session_items=SESSION,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


CURVES = (
    Curve(
        "history",
        "items",
        (16, 32, 64, 128, 256, 512, 1024),
        (16, 64, 256),
        2.0,
        "attention of the encoder: pairs of history tokens; all else is linear",
        lambda size: Point(shape(history_items=size)),
    ),
    Curve(
        "beam",
        "beams",
        (8, 16, 32, 64, 128, 256, 512, 1024),
        (8, 32, 128),
        1.0,
        "rows of the decoder",
        lambda size: Point(shape(), beam=size),
    ),
    Curve(
        "session",
        "items",
        (1, 2, 4, 8, 16),
        (1, 4, 8),
        2.0,
        "each position attends those before it; all else is linear",
        lambda size: Point(shape(session_items=size)),
    ),
    Curve(
        "experts",
        "experts, 2 active",
        (4, 8, 16, 32, 64),
        (4, 16, 64),
        1.0,
        "routing, and fewer rows for each expert's weights; the products themselves do not grow",
        lambda size: Point(shape(experts=size, active_experts=2, expert_hidden=HIDDEN // 2)),
    ),
    Curve("batch", "requests", (1, 2, 4, 8, 16, 32), (1, 4, 16), 1.0, "requests", lambda n: Point(shape(), batch=n)),
    Curve(
        "catalogue",
        "items",
        (1_000, 10_000, 100_000, 1_000_000),
        (1_000, 10_000, 100_000),
        0.0,
        "branches have at most 256 children; in dense catalogues fewer codes are decided by those before them",
        lambda size: Point(shape(), items=size),
    ),
)
