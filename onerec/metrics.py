"""Reads the metrics endpoints of the services, as Prometheus would."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
MAX_BYTES = 64 * 2**20
"""Of an answer."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one scrape of all services, by metric name and labels."""

    values: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def get(self, name: str, **labels: str) -> float:
        """The sum of all samples of `name` that carry `labels`; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for key, value in self.values.get(name, {}).items() if wanted <= set(key))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums of `name` by the values of one label."""
        sums: dict[str, float] = {}
        for key, value in self.values.get(name, {}).items():
            word = dict(key).get(label, "")
            sums[word] = sums.get(word, 0.0) + value
        return sums

    def since(self, earlier: Samples) -> Samples:
        """What counters and histograms have counted since an earlier scrape; of gauges it makes no sense."""
        return Samples(
            {
                name: {labels: value - earlier.values.get(name, {}).get(labels, 0.0) for labels, value in held.items()}
                for name, held in self.values.items()
            }
        )

    def mean(self, name: str, **labels: str) -> float | None:
        """The mean of a histogram; None where nothing was observed."""
        count = self.get(f"{name}_count", **labels)
        return self.get(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """A quantile of a histogram, interpolated within its bucket; None where nothing was observed."""
        wanted = set(labels.items())
        counts: dict[float, float] = {}
        for key, value in self.values.get(f"{name}_bucket", {}).items():
            if wanted <= set(key):
                bound = float(dict(key)["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        bounds = sorted(counts)
        if not bounds or counts[bounds[-1]] == 0:
            return None
        target, low, below = share * counts[bounds[-1]], 0.0, 0.0
        for bound in bounds:
            if counts[bound] >= target:
                if bound == float("inf"):
                    return low
                inside = counts[bound] - below
                return low + (bound - low) * ((target - below) / inside if inside else 1.0)
            low, below = bound, counts[bound]
        return low


def read_metrics(port: int, *, host: str = "127.0.0.1", timeout_s: float = 1.0) -> Mapping[str, Mapping[Labels, float]]:
    """One service's samples; empty while it does not answer, or something else does on its port."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=timeout_s) as answer:
            return samples_of(answer.read(MAX_BYTES).decode())
    except (http.client.HTTPException, OSError, ValueError):
        return {}


def samples_of(text: str) -> Mapping[str, Mapping[Labels, float]]:
    """The samples of an endpoint's answer. Raises ValueError where it is none."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def scrape(endpoints: Mapping[str, int]) -> Samples:
    """The samples of services by name and port on this machine, each with the label `job`, the service's name."""
    together: dict[str, dict[Labels, float]] = {}
    for service, port in endpoints.items():
        for name, samples in read_metrics(port).items():
            for labels, value in samples.items():
                together.setdefault(name, {})[(*labels, ("job", service))] = value
    return Samples(together)
