"""The worker's queue and engine without Kafka: requests come evenly, as behind Kafka, at half of what can be served."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from bench.serving import world
from inference.engine.search import Engine
from inference.worker.queue import RequestQueue
from onerec.features import HistoryArrays, history_batch
from onerec.model.onerec import OneRec
from onerec.settings import Settings
from schemas.records import Request


class HalfLoad:
    """Side: one turn is `seconds_a_turn` of requests; it tells p50 and p99 of their latency in seconds."""

    def __init__(self, *, seconds_a_turn: float) -> None:
        self._turn_s = seconds_a_turn

    def prepare(self) -> dict[str, Any]:
        """Model, catalogue, users, and how many requests a second can be served."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        inference = Settings().inference
        self._width, self._worker = inference.decoding.beam_width, inference.worker
        self._catalogue = world.catalogue()
        self._users = [HistoryArrays.of(history) for history in world.histories()]
        self._engine = Engine(OneRec(world.shape()).eval())
        full = list(range(self._worker.max_batch))
        self._serve(full)
        started_s = time.perf_counter()
        for _ in range(5):
            self._serve(full)
        self._capacity = 5 * len(full) / (time.perf_counter() - started_s)
        return {"preset": world.PRESET, "beam": self._width, "capacity_per_s": round(self._capacity, 1), "threads": 1}

    def repeat(self) -> dict[str, Any]:
        """Requests at half the capacity, for one turn."""
        queue = RequestQueue(self._worker.max_batch, self._worker.deadline_ms, self._worker.max_wait_ms)
        begun_s, comes_s, number = time.perf_counter(), 0.0, 0
        latencies: list[float] = []
        while (now_s := time.perf_counter() - begun_s) < self._turn_s or len(queue):
            while comes_s <= now_s and comes_s < self._turn_s:
                request = Request(request_id=number, user_id=number, time_ms=0, items=5, produced_ms=0)
                queue.add(request, 0, number, now_ms=1000 * comes_s, age_ms=0.0)
                number += 1
                comes_s += 2 / self._capacity
            due_ms = queue.wait_ms(1000 * now_s)
            if due_ms != 0.0:
                until_s = min(comes_s - now_s, 1e-3 * due_ms if due_ms is not None else self._turn_s)
                time.sleep(max(0.0, min(until_s, self._turn_s - now_s)))
                continue
            batch = queue.take((0,))
            self._serve([waiting.request.request_id % len(self._users) for waiting in batch])
            ended_ms = 1000 * (time.perf_counter() - begun_s)
            latencies += [(ended_ms - waiting.arrived_ms) / 1000 for waiting in batch]
        return {"seconds": float(np.median(latencies)), "p99": float(np.quantile(latencies, 0.99)), "requests": number}

    def _serve(self, users: list[int]) -> None:
        batch = history_batch([self._users[user] for user in users], self._catalogue, self._engine.config)
        self._engine.generate(batch, self._catalogue, beam_width=self._width)
