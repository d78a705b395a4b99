"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, str | int]:
    """CPU model and features, cores, memory, Python and torch: to stand beside every measured number."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    words = {key.strip(): value.strip() for key, value in fields.items()}
    return {
        "cpu": words.get("model name", platform.processor() or platform.machine()),
        "features": ", ".join(feature for feature in FEATURES if feature in words.get("flags", "").split()),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
