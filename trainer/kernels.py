"""Which kernels a step is computed by: the compiled ones, or torch's.

They round differently. So the journal's start entries name them, every rank computes by those of the first, and a step
that is executed again is computed by those that it was made by.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from onerec.errors import DependencyMissingError
from onerec.kernels.binding import Compiled
from onerec.kernels.check import checked
from onerec.model import backend
from onerec.settings import TrainerSettings

LOG = logging.getLogger(__name__)
KEY = "elementwise"
"""The environment's, as journals have it since kernels were of that kind alone."""
TORCH = "torch"


def choose(settings: TrainerSettings, device: torch.device, *, sharded: bool = False) -> None:
    """Compute by the compiled kernels where they are wanted, there and right; they are for CPUs.

    Of a `sharded` model they leave products with weights to torch: a module's weights are whole only while it is
    called, and a branch calls none.
    """
    kernels = checked(products=False if sharded else None) if settings.compiled and device.type == "cpu" else None
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
    return named == TORCH or _of(named) is not None


def use_recorded(environment: Mapping[str, str]) -> None:
    """Compute by those of the environment; by torch's where they are not here, with other rounding."""
    named = recorded(environment)
    if named != name():
        backend.use(_of(named))


def use_those_of_rank_0(named: str) -> None:
    """Compute as the first rank does. Raises DependencyMissingError where this one cannot."""
    if named == name():
        return
    if not are_here(named):
        raise DependencyMissingError(
            f"The first rank computes by the kernels {named}, which this one does not have.",
            "Run `python -m trainer kernels` on every machine, or set trainer.compiled to false.",
        )
    backend.use(_of(named))


def _of(named: str) -> Compiled | None:
    """Those of a name, with products or without; None for torch and for what is not here."""
    here = (checked(), checked(products=False)) if named != TORCH else ()
    return next((kernels for kernels in here if kernels is not None and kernels.name == named), None)
