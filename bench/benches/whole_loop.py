"""Freshness, swap and memory, as the whole loop shows them while a log flows through it."""

from __future__ import annotations

from bench.bench import Bench, Bound, Context, Measured
from bench.loop import Loop, observed

EKKO_S = 2.4
"""What Ekko (OSDI 2022) reports for its updates, as a peer that cannot be run here."""


def _loop(context: Context) -> Loop:
    return observed(context.directory.parent / "loop", brief=context.brief)


def _freshness(context: Context) -> Measured:
    loop = _loop(context)
    sample, action = loop.report["sample_freshness_s"], loop.report["freshness_s"]
    figures = {
        "p50_s": sample["p50"],
        "p99_s": sample["p99"],
        "from_action_p50_s": action["p50"],
        "from_action_p99_s": action["p99"],
    }
    ratio = EKKO_S / sample["p50"] if sample["p50"] else None
    told = loop.conditions() | {
        "peer": "Ekko as published, on other machines with another model, from an update of the weights on",
        "stages_s": loop.report["freshness_stages_s"],
    }
    return Measured(sample["p50"], EKKO_S, ratio, None, figures, told)


def _swap(context: Context) -> Measured:
    loop = _loop(context)
    share = loop.delta_bytes / loop.full_bytes if loop.delta_bytes else None
    figures: dict[str, float | None] = {
        "share_of_full": share,
        "pause_ms": loop.pause_ms,
        "lost_requests": float(loop.report["unanswered"]),
    }
    return Measured(loop.delta_bytes, loop.full_bytes, 1 / share if share else None, None, figures, loop.conditions())


def _memory(context: Context) -> Measured:
    loop = _loop(context)
    worker, trainer = (loop.peak_mb.get(name) for name in ("worker", "trainer"))
    told = loop.conditions() | {"peak_mb": {name: round(used) for name, used in loop.peak_mb.items()}}
    return Measured(worker, None, None, None, {"worker_mb": worker, "trainer_mb": trainer}, told)


BENCHES = (
    Bench(
        "freshness",
        "from the production of the last event that a session waits for to weights that learned from it being served, "
        "whole loop running on this machine; from_action: from the action itself on, with the joiner's windows",
        "s",
        (Bound("p50_s", "<=", 1.0), Bound("p99_s", "<=", 3.0)),
        _freshness,
    ),
    Bench(
        "swap",
        "bytes of a version as a lossless delta, against all of its weights; the pause of a swap, lost requests",
        "bytes",
        (Bound("lost_requests", "<=", 0), Bound("pause_ms", "<=", 5.0), Bound("share_of_full", "<=", 0.15)),
        _swap,
    ),
    Bench(
        "memory",
        "most resident memory of the worker, and of the trainer, with preset small in the running loop",
        "MB",
        (Bound("worker_mb", "<=", 700.0), Bound("trainer_mb", "<=", 1_500.0)),
        _memory,
    ),
)
