"""Where each millisecond of a request goes: what the worker's histogram `inference_worker_stage_seconds` tells apart.

    sent        from the client's sending it until it can be read: the client's batching, the broker, the fetch
    queued      until its batch begins: the batch before it, during which nothing is read, and the wait for others
    prepared    histories, exclusions and masks of the batch as tensors
    decoded     the engine
    recorded    answers as records, handed to the producer
    delivered   until the broker has confirmed the answer

The first five add up to the latency that an answer tells; `sent` and `delivered` are Kafka's share.
"""

from __future__ import annotations

import time

from inference.worker import metrics

STAGES = ("sent", "queued", "prepared", "decoded", "recorded", "delivered")
KAFKA = ("sent", "delivered")


def observe(stage: str, seconds: float, requests: int = 1) -> None:
    """Each of `requests` has spent so much time in this stage."""
    child = metrics.STAGE.labels(stage)
    for _ in range(requests):
        child.observe(max(0.0, seconds))


class Laps:
    """Stages of a batch, one after the other."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._since_s = time.perf_counter()

    def end(self, stage: str) -> None:
        """A stage has ended, the next begins."""
        now_s = time.perf_counter()
        observe(stage, now_s - self._since_s, self._requests)
        self._since_s = now_s


for _stage in STAGES:
    metrics.STAGE.labels(_stage)
