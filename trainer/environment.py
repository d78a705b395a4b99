"""What decides whether a rerun is bit-identical: threads, kernels, processor, library versions.

On an equal environment a step repeated from the same state over the same input gives the same bits; on
another one it gives the same up to rounding. The journal's start entries carry it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version

import torch

from onerec.machine import machine
from onerec.settings import Settings, TrainerSettings

LIBRARIES = ("torch", "numpy", "safetensors")
SETTINGS = "trainer"


def make_deterministic(threads: int) -> None:
    """Let torch use only kernels that repeat their bits, with `threads` threads in each.

    Freshly allocated memory is not filled: no kernel here reads what it did not write, and filling costs time.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def describe(settings: Settings) -> dict[str, str]:
    """The environment of a run, for the journal and the checkpoint."""
    found = machine()
    libraries = {name: version(name) for name in LIBRARIES}
    return libraries | {
        "python": platform.python_version(),
        "cpu": str(found["cpu"]),
        "cpu_features": str(found["features"]),
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": str(settings.trainer.threads),
        "preset": settings.model.preset,
        SETTINGS: settings.trainer.model_dump_json(),
    }


def settings_of(environment: Mapping[str, str]) -> TrainerSettings:
    """The trainer's settings in `describe`'s answer."""
    return TrainerSettings.model_validate_json(environment[SETTINGS])
