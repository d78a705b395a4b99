"""Which kernels a step is computed by: the compiled ones, or torch's.

They round differently. So the journal's start entries name them, every rank computes by those of the first, and a step
that is executed again is computed by those that it was made by.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from onerec.errors import DependencyMissingError
from onerec.kernels.check import checked
from onerec.model import backend
from onerec.settings import TrainerSettings

LOG = logging.getLogger(__name__)
KEY = "elementwise"
"""The environment's, as journals have it since kernels were of that kind alone."""
TORCH = "torch"


def choose(settings: TrainerSettings, device: torch.device) -> None:
    """Compute by the compiled kernels where they are wanted, there and right; they are for CPUs."""
    kernels = checked() if settings.compiled and device.type == "cpu" else None
    backend.use(kernels)
    LOG.info("training kernels: %s", name())


def name() -> str:
    """Of those that this process computes by."""
    kernels = backend.chosen()
    return TORCH if kernels is None else kernels.name


def recorded(environment: Mapping[str, str]) -> str:
    """The name in an environment; older ones have none."""
    return environment.get(KEY, TORCH)


def are_here(named: str) -> bool:
    """Whether this process can compute by kernels of this name."""
    kernels = checked() if named != TORCH else None
    return named == TORCH or (kernels is not None and kernels.name == named)


def use_recorded(environment: Mapping[str, str]) -> None:
    """Compute by those of the environment; by torch's where they are not here, with other rounding."""
    named = recorded(environment)
    if named != name():
        backend.use(checked() if named != TORCH and are_here(named) else None)


def use_those_of_rank_0(named: str) -> None:
    """Compute as the first rank does. Raises DependencyMissingError where this one cannot."""
    if named == name():
        return
    if not are_here(named):
        raise DependencyMissingError(
            f"The first rank computes by the kernels {named}, which this one does not have.",
            "Run `python -m trainer kernels` on every machine, or set trainer.compiled to false.",
        )
    backend.use(None if named == TORCH else checked())
