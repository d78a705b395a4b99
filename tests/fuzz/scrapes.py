"""Answers of metrics endpoints: another program may sit on a service's port."""

from __future__ import annotations

import contextlib

from onerec.metrics import Samples, samples_of

GOOD = b"""# HELP onerec_ready Whether it is ready.
# TYPE onerec_ready gauge
onerec_ready{service="worker"} 1.0
# TYPE inference_worker_latency_seconds histogram
inference_worker_latency_seconds_bucket{le="0.1"} 5.0
inference_worker_latency_seconds_bucket{le="+Inf"} 7.0
"""
SEEDS = [GOOD, b"<html>", b"a{", b'a{b="\\', b"a 1 2 3", b"{} 1", b'a{le="x"} 1', b"a NaN", b"a 1_0"]


def target(data: bytes) -> None:
    """Read as samples, or no metrics: ValueError, which the reader takes for no answer."""
    with contextlib.suppress(ValueError):
        samples = Samples(samples_of(data.decode()))
        samples.get("onerec_ready", service="worker")
        samples.by("onerec_ready", "service")
