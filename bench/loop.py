"""The whole loop, run once for all benches that look at it: the demo, without its view."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench.brokers import broker_of, no_settings_of_the_shell
from onerec.demo.loop import Demo, Options, Progress, configuration
from onerec.demo.supervisor import Supervisor
from onerec.errors import CheckFailedError
from onerec.settings import TrainerSettings, load_settings

PRESET = "small"
EVENTS, EVENTS_BRIEF = 2_000, 200
SPEED = 300.0
"""Some 20 exposures a second, a fifth of what the loop does on two cores when nobody waits. At its very limit every
service waits for a core, and freshness and pauses are those of the queues for it."""
SEED_S, SEED_BRIEF_S = 20.0, 2.0
PAUSE = "inference_worker_swap_pause_seconds"


@dataclass(slots=True)
class Loop:
    """What a run has shown."""

    report: dict[str, Any]
    """The demo's, from the topics read afresh."""
    broker: str
    pause_ms: float | None
    """Upper bound of the longest swap, by the bucket it fell in."""
    peak_mb: dict[str, float]
    """Most resident memory of each service."""
    full_bytes: float
    delta_bytes: float | None
    """Medians over the versions in the store."""

    def conditions(self) -> dict[str, Any]:
        """What stands under every figure of the loop."""
        names = (
            "events_produced",
            "sessions_trained",
            "requests",
            "unanswered",
            "lost",
            "duplicated",
            "swaps",
            "wall_s",
        )
        return {
            "broker": self.broker,
            "preset": PRESET,
            "replay_speed": SPEED,
            **{name: self.report[name] for name in names},
        }


@dataclass(slots=True)
class _Watch:
    """Looks at memory and metrics with every turn of the demo."""

    supervisor: Supervisor
    peak_mb: dict[str, float] = field(default_factory=dict)
    pause_ms: float | None = None

    def __call__(self, progress: Progress) -> None:
        for pid, name in self.supervisor.process_ids().items():
            try:
                used_mb = psutil.Process(pid).memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
            self.peak_mb[name] = max(used_mb, self.peak_mb.get(name, 0.0))
        longest_s = progress.samples.quantile(PAUSE, 1.0, job="worker")
        if longest_s is not None:
            self.pause_ms = 1000 * longest_s


@cache
def observed(directory: Path, *, brief: bool) -> Loop:
    """Run it, once in this process. Raises OneRecError where the loop cannot run."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    options = Options(
        directory,
        EVENTS_BRIEF if brief else EVENTS,
        SEED_BRIEF_S if brief else SEED_S,
        PRESET,
        None,
        speed=0.0 if brief else SPEED,
        publish_interval_s=TrainerSettings().publish_interval_s,
    )
    config = directory / "onerec.toml"
    with broker_of(directory) as (servers, broker):
        config.write_text(configuration(options, servers))
        environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with no_settings_of_the_shell(), Supervisor(directory, environment) as supervisor:
            watch = _Watch(supervisor)
            report = Demo(options, load_settings(config), supervisor, Progress(on_change=watch)).run()
    full, deltas = _sizes(directory / "store" / "versions")
    return Loop(report, broker, watch.pause_ms, watch.peak_mb, full, deltas)


def _sizes(versions: Path) -> tuple[float, float | None]:
    """Medians of what full versions and deltas take in the store, in bytes."""
    sizes: dict[str, list[int]] = {"full": [], "delta": []}
    for manifest in versions.glob("*/manifest.json"):
        told = json.loads(manifest.read_text())
        sizes[told["kind"]].append(told["size_bytes"])
    if not sizes["full"]:
        raise CheckFailedError(f"The loop has left no full version in {versions}.", "See the trainer's log.")
    return statistics.median(sizes["full"]), statistics.median(sizes["delta"]) if sizes["delta"] else None
