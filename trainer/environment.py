"""What decides whether a rerun is bit-identical: threads, kernels, processor or GPU, library versions, the code itself.

On an equal environment a step repeated from the same state over the same input gives the same bits; on
another one it gives the same up to rounding. The journal's start entries carry it.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from onerec.device import device_of
from onerec.machine import machine
from onerec.settings import Settings, TrainerSettings
from trainer import kernels
from trainer.ranks import CUBLAS, Ranks

LIBRARIES = ("torch", "numpy", "safetensors")
SETTINGS = "trainer"
RANKS = "ranks"
DECIDES_NOTHING = frozenset({SETTINGS, "threads", "seed_data"})
"""Keys of an environment that a rerun takes from the record instead of comparing them with its own."""
KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
"""Environment variables by which torch's libraries choose among kernels that round differently."""
CODE = ("onerec/kernels", "onerec/model", "onerec/catalogue.py", "onerec/features.py", "trainer")
"""Source files whose statements a step executes."""


def make_deterministic(threads: int) -> None:
    """Let torch use only kernels that repeat their bits, with `threads` threads in each.

    Freshly allocated memory is not filled: no kernel here reads what it did not write, and filling costs time.
    """
    os.environ.setdefault(CUBLAS, ":4096:8")  # or matrix products on CUDA do not repeat their bits
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports torch's compiler
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
        "kernel_variables": " ".join(f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ),
        kernels.KEY: kernels.name(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "code": code_digest(),
        "threads": str(settings.trainer.threads),
        "preset": settings.model.configuration,
        SETTINGS: settings.trainer.model_dump_json(),
    }


def of_place(settings: Settings, ranks: Ranks | None) -> dict[str, str]:
    """What of device and process group decides bits; nothing for one process on CPU.

    Raises SettingsError for a device that is not there.
    """
    if ranks is None:
        return _of_device(device_of(settings.trainer.device, "trainer.device"))
    group = {RANKS: str(ranks.world), "ranks_backend": ranks.backend, "ranks_sharding": ranks.sharding}
    return group | _of_device(ranks.device)


def _of_device(device: torch.device) -> dict[str, str]:
    if device.type == "cpu":
        return {}
    return {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}


def parts_of(environment: Mapping[str, str]) -> int:
    """Into how many parts a trainer of this environment cut a batch: one for each rank."""
    return int(environment.get(RANKS, "1"))


def settings_of(environment: Mapping[str, str]) -> TrainerSettings:
    """The trainer's settings in `describe`'s answer."""
    return TrainerSettings.model_validate_json(environment[SETTINGS])


def differences(recorded: Mapping[str, str], here: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What decides bits and is not the same: by key, as recorded and as here; a key that one lacks is empty there."""
    keys = sorted((recorded.keys() | here.keys()) - DECIDES_NOTHING)
    pairs = {key: (recorded.get(key, ""), here.get(key, "")) for key in keys}
    if kernels.are_here(kernels.recorded(recorded)):  # a rerun computes by them, whatever is chosen here
        pairs.pop(kernels.KEY, None)
    return {key: (before, now) for key, (before, now) in pairs.items() if before != now}


@cache
def code_digest() -> str:
    """SHA-256, shortened, over the source files that a step executes."""
    root = Path(__file__).resolve().parents[1]
    sha = hashlib.sha256()
    for path in sorted(file for name in CODE for file in _sources(root / name)):
        sha.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


def _sources(path: Path) -> list[Path]:
    return list(path.glob("*.py")) if path.is_dir() else [path]
