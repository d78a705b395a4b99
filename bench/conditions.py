"""What the figures were measured on, and whether the machine had anything else to do."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from onerec.machine import machine

PACKAGES = ("confluent-kafka", "fastavro", "numpy")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


def conditions(*, brief: bool) -> dict[str, Any]:
    """Processor and its flags, versions, and the load of the last minute by others and ourselves."""
    told: dict[str, Any] = {**machine(), "flags": _flags(), "load_average": round(os.getloadavg()[0], 1)}
    for package in PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = "not installed"
    if brief:
        told["brief"] = "small sizes and few turns: shows that the bench works, no figure to keep"
    return told


def _flags() -> list[str]:
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [flag for flag in FLAGS if flag in words]
