"""What rank 0 tells the other ranks, beside a `Lesson` and None, which ends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from onerec.model.presets import ModelConfig
from onerec.settings import TrainerSettings


@dataclass(frozen=True, slots=True)
class Adopt:
    """Here comes a state: weights and moments follow as broadcasts, in this order."""

    config: ModelConfig
    settings: TrainerSettings
    sharding: str
    shapes: Mapping[str, tuple[torch.Size, torch.dtype]]


@dataclass(frozen=True, slots=True)
class Gather:
    """Take part in gathering what this method of the state returns."""

    method: str


@dataclass(frozen=True, slots=True)
class Seeding:
    """The seed begins to train the state, or has ended."""

    begins: bool
