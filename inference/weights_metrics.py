"""Metrics of following versions, with the name of the service that follows."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

PAUSE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1, 1.0)
LOAD_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
FRESHNESS_BUCKETS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 60.0, 300.0)


class WeightsMetrics:
    """`inference_<service>_…`; see `weights_metrics`."""

    def __init__(self, service: str) -> None:
        prefix = f"inference_{service}"
        self.version = Gauge(f"{prefix}_version", "Version that answers now; 0 before the first.")
        self.newest = Gauge(f"{prefix}_newest_version", "Newest version announced: ahead of the one that answers?")
        self.pause = Histogram(
            f"{prefix}_swap_pause_seconds", "Time for which a swap held up the serving thread.", buckets=PAUSE_BUCKETS
        )
        self.load = Histogram(
            f"{prefix}_load_seconds",
            "From the decision to load a version to its being ready, beside the serving thread.",
            buckets=LOAD_BUCKETS,
        )
        self.freshness = Histogram(
            f"{prefix}_freshness_seconds",
            "From an action's production to the first moment at which weights that learned from it are served.",
            buckets=FRESHNESS_BUCKETS,
        )
        self.swaps = Counter(f"{prefix}_swaps_total", "Versions swapped in, without the first.")
        self.failures = Counter(
            f"{prefix}_swap_failures_total", "Versions that could not be loaded; the one before went on.", ["reason"]
        )


@cache
def weights_metrics(service: str) -> WeightsMetrics:
    """The metrics of a service, made once in a process."""
    return WeightsMetrics(service)
