"""Metrics of the worker; `inference.weights_metrics` has those of following versions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DECODE_BUCKETS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

REQUESTS = Counter("inference_worker_requests_total", "Requests that got an answer, by its status.", ["status"])
LATENCY = Histogram(
    "inference_worker_latency_seconds",
    "From the client's sending a request to its answer's being written, of requests answered.",
    buckets=LATENCY_BUCKETS,
)
STAGE = Histogram(
    "inference_worker_stage_seconds",
    "Where a request's time goes, see inference.worker.stages; each request of a batch waits for all of the batch.",
    ["stage"],
    buckets=STAGE_BUCKETS,
)
BATCH = Histogram("inference_worker_batch_size", "Requests decoded together.", buckets=BATCH_BUCKETS)
DECODE = Histogram(
    "inference_worker_decode_seconds", "Decoding of a batch, per request of the batch.", buckets=DECODE_BUCKETS
)
ITEMS = Counter("inference_worker_items_total", "Items returned.")
INVALID = Counter("inference_worker_invalid_items_total", "Items returned that do not exist or repeat: a defect.")
VALIDITY = Gauge("inference_worker_beam_validity", "Share of returned items that exist; 1 by construction.")
CATALOGUE = Gauge("inference_worker_catalogue_items", "Items that can be recommended.")
CATALOGUE_OFFSET = Gauge("inference_worker_catalogue_offset", "How far item-tokens has been applied.")
KERNELS = Gauge(
    "inference_worker_kernels", "1 for what decodes; other kernels answer alike but for rounding.", ["kernels"]
)
UNKNOWN = Counter("inference_worker_unknown_users_total", "Answers to users without a history.")
LAG_EVENTS = Gauge("inference_worker_lag_events", "Requests in the log or waiting that have no answer yet.")
LAG_SECONDS = Gauge("inference_worker_lag_seconds", "Age of the oldest request that waits.")

MEMORIES = Counter(
    "inference_worker_memories_total", "Histories of requests: found encoded already, or encoded.", ["how"]
)

for _how in ("found", "encoded"):
    MEMORIES.labels(_how)
for _status in ("answered", "overloaded", "refused"):
    REQUESTS.labels(_status)
VALIDITY.set(1.0)


class Validity:
    """Counts returned items and how many of them do not exist."""

    def __init__(self) -> None:
        self._returned = self._invalid = 0

    def observe(self, returned: int, invalid: int) -> None:
        """Count one answer's items."""
        self._returned += returned
        self._invalid += invalid
        ITEMS.inc(returned)
        INVALID.inc(invalid)
        if self._returned:
            VALIDITY.set(1.0 - self._invalid / self._returned)
