"""Settings of a soak: the demo's model and its real log, at the rate that the worker can take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onerec.settings import KafkaSettings

SEED_S = 30.0
PAIR_WINDOW = 5_000
KEEP_VERSIONS = 100
MEMORY_CACHE_MB = 8


def tables(kafka: KafkaSettings, directory: Path, preset: str) -> dict[str, Any]:
    """The settings' tables.

    What fills up over hours in production fills up within the minutes that are left out of the fit: the window of ids
    that the trainer has seen, the encoder's outputs that the worker keeps, and the versions that the store
    keeps. So what still grows afterwards is a leak.
    """
    return {
        "kafka": kafka.model_dump(mode="json", exclude_none=True),
        "store": {"uri": str((directory / "store").resolve()), "keep_versions": KEEP_VERSIONS},
        "model": {"preset": preset},
        "stream": {"joiner": {"idle_close_s": 10.0}},
        "trainer": {
            "publish_interval_s": 2.0,
            "pair_window": PAIR_WINDOW,
            "seed": {"budget_s": SEED_S, "threads": 1},
        },
        "inference": {
            "decoding": {"later_beam_width": 4, "memory_cache_mb": MEMORY_CACHE_MB},
            "worker": {"max_batch": 16, "deadline_ms": 10_000},
            "sampler": {"share": 0.02},
        },
    }
