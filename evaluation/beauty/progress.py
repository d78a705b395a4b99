"""Where a training is, and the file that an interrupted one goes on from.

An OneRec of the full form takes more than an hour on one core, so its state is kept every minute, after an epoch. A
training that goes on ends in the weights that it would have had without the interruption, on the same processor with
as many threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from evaluation.beauty.looks import Best

KEPT_EVERY_S = 60.0


class Stateful(Protocol):
    """What learns."""

    def state_dict(self) -> dict[str, Any]:
        """All that its next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


@dataclass(slots=True)
class Progress:
    """After `epoch` of `epochs`: steps and seconds so far, looks (epoch, loss, validation), and the best of these."""

    epochs: int
    epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    first_epoch_s: float = 0.0
    looks: list[list[float]] = field(default_factory=list)
    best: Best = field(default_factory=Best)

    def history(self) -> dict[str, Any]:
        """How it went, for the results."""
        return {
            "looks": self.looks,
            "best_epoch": self.best.epoch,
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
        }


class Kept:
    """The file of a training on the CPU; without a path nothing is kept."""

    def __init__(self, path: Path | None, every_s: float = KEPT_EVERY_S) -> None:
        self._path, self._every_s, self._last_s = path, every_s, time.monotonic()

    def load(self, progress: Progress, learner: Stateful, generator: torch.Generator) -> bool:
        """Go on from the file, random numbers of torch and of the generator, too; false where there is none."""
        if self._path is None or not self._path.is_file():
            return False
        kept: dict[str, Any] = torch.load(self._path, weights_only=True)
        for name, value in kept["progress"].items():
            setattr(progress, name, value)
        progress.best.load_state_dict(kept["best"])
        learner.load_state_dict(kept["learner"])
        torch.set_rng_state(kept["random"])
        generator.set_state(kept["order"])
        return True

    def save(self, progress: Progress, learner: Stateful, generator: torch.Generator) -> bool:
        """Replace the file where the last time is long enough ago; whether it was."""
        if self._path is None or time.monotonic() - self._last_s < self._every_s:
            return False
        plain = {name: getattr(progress, name) for name in Progress.__slots__ if name != "best"}
        random: dict[str, Tensor] = {"random": torch.get_rng_state(), "order": generator.get_state()}
        state = {"progress": plain, "best": progress.best.state_dict(), "learner": learner.state_dict()} | random
        unfinished = self._path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        unfinished.replace(self._path)
        self._last_s = time.monotonic()
        return True

    def remove(self) -> None:
        """Once the model itself is kept."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
