"""Settings of a system under test: the smallest model, everything often, nothing by the wall clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onerec.settings import KafkaSettings

NEVER_S = 86_400.0
MAX_POLL_INTERVAL_MS = 10_000
HISTORY_ITEMS = 8
BROKER_PATIENCE_S = 90.0
"""A broker that starts again beside eight other processes on two cores takes half a minute."""


def tables(kafka: KafkaSettings, directory: Path) -> dict[str, Any]:
    """The settings' tables.

    Windows close by event time alone (`idle_close_s`), so that what must come out is a function of what went in.
    Checkpoints and versions are so frequent that faults fall between any two of their steps; a consumer that is
    stopped for more than MAX_POLL_INTERVAL_MS is out.
    """
    librdkafka = {"max.poll.interval.ms": str(MAX_POLL_INTERVAL_MS)} | kafka.librdkafka
    patient = {"librdkafka": librdkafka, "broker_patience_s": BROKER_PATIENCE_S}
    return {
        "kafka": kafka.model_copy(update=patient).model_dump(mode="json", exclude_none=True),
        "store": {"uri": str((directory / "store").resolve())},
        "model": {"preset": "tiny"},
        "stream": {
            "joiner": {
                "idle_close_s": NEVER_S,
                "session_items": 3,
                "history_items": HISTORY_ITEMS,
                "transaction_ms": 100,
            }
        },
        "trainer": {
            "batch": 16,
            "batch_wait_ms": 100,
            "publish_interval_s": 0.5,
            "full_every": 20,
            "checkpoint_interval_s": 2.0,
            "warmup_steps": 0,
            "seed": {"samples": 256, "batch": 32, "settle_s": 0.5, "wait_s": 30.0, "threads": 1},
        },
        "inference": {
            "decoding": {"beam_width": 16, "later_beam_width": 4},
            "worker": {"deadline_ms": 20_000},
            "sampler": {"share": 0.2, "candidates": 8},
        },
    }


def toml(nested: Mapping[str, Any], above: str = "") -> str:
    """Nested tables of plain values as TOML."""
    return "\n".join(_lines(nested, above)) + "\n"


def _lines(nested: Mapping[str, Any], above: str) -> Iterator[str]:
    if above:
        yield f"[{above}]"
    for key, value in nested.items():
        if not isinstance(value, Mapping):
            yield f"{json.dumps(key)} = {json.dumps(value)}"
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{above}.{json.dumps(key)}" if above else key)
