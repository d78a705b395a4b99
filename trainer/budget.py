"""How long the seed may train: by the clock, by samples, or as an earlier seed did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onerec.settings import SeedSettings


class Budget(Protocol):
    """How much of the seed is done."""

    def share(self, step: int, samples: int) -> float:
        """Share of the budget consumed after `step` steps with `samples` samples; 1 or more ends the seed."""


@dataclass(frozen=True, slots=True)
class WallTime:
    """So many seconds from `started_s` on."""

    seconds: float
    started_s: float

    def share(self, step: int, samples: int) -> float:
        """By the clock."""
        del step, samples
        return (time.monotonic() - self.started_s) / self.seconds


@dataclass(frozen=True, slots=True)
class SampleCount:
    """So many samples: the same on every machine."""

    samples: int

    def share(self, step: int, samples: int) -> float:
        """By count."""
        del step
        return samples / self.samples


@dataclass(frozen=True, slots=True)
class Recorded:
    """The shares that an earlier seed journalled, one a step: makes a seed by wall time again."""

    shares: Sequence[float]

    def share(self, step: int, samples: int) -> float:
        """As it was then."""
        del samples
        return self.shares[step] if step < len(self.shares) else 1.0


def budget_of(settings: SeedSettings) -> Budget:
    """The budget that the settings name, from now on."""
    if settings.samples is not None:
        return SampleCount(settings.samples)
    return WallTime(settings.budget_s, time.monotonic())
