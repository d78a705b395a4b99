"""Peer: transformers' T5, a training step in the best of its attentions with and without torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.nn.utils import clip_grad_norm_

from bench.decoding import shapes, t5

POSITIONS = shapes.SESSION_ITEMS * (shapes.LEVELS + 1)


class Step:
    """Side: forward, backward, clipping and AdamW on as many samples of as many positions as ours."""

    def __init__(self, *, batch: int, threads: int, dtype: str, compiled: bool = True) -> None:
        self._batch, self._threads = batch, threads
        self._dtype, self._compiled = getattr(torch, dtype), compiled

    def prepare(self) -> dict[str, Any]:
        """Try every variant, twice to warm up and once for its time, and keep the fastest."""
        torch.set_num_threads(self._threads)
        self._inputs = t5.inputs(self._batch)
        items = t5.inputs(self._batch).view(self._batch, -1, shapes.LEVELS)[:, : shapes.SESSION_ITEMS]
        starts = torch.full((self._batch, shapes.SESSION_ITEMS, 1), t5.START)
        self._labels = torch.cat([items, starts], dim=2).flatten(1)
        tried: dict[str, float] = {}
        for attention in ("sdpa", "eager"):
            for compiled in (False, True) if self._compiled else (False,):
                name = f"{attention}, {'torch.compile' if compiled else 'not compiled'}"
                try:
                    step = self._variant(attention, compiled=compiled)
                    step()
                    step()
                except Exception as error:  # a variant that this version does not have
                    tried[f"{name}: {type(error).__name__}: {error}"[:120]] = float("inf")
                    continue
                started_s = time.perf_counter()
                step()
                seconds = time.perf_counter() - started_s
                if not tried or seconds < min(tried.values()):
                    self._step, best = step, name
                tried[name] = seconds
        return {
            "peer": f"transformers {transformers.__version__} T5",
            "variant": best,
            "tried_ms_a_step": {name: round(1000 * s, 1) if s < float("inf") else None for name, s in tried.items()},
            "dtype": "autocast bfloat16" if self._dtype == torch.bfloat16 else "float32",
            "positions": POSITIONS,
            "batch": self._batch,
            "threads": self._threads,
        }

    def repeat(self) -> dict[str, Any]:
        """One step."""
        started_s = time.perf_counter()
        loss = self._step()
        return {"seconds": time.perf_counter() - started_s, "loss": loss}

    def _variant(self, attention: str, *, compiled: bool) -> Callable[[], float]:
        torch.manual_seed(0)
        made: Any = transformers.T5ForConditionalGeneration._from_config(t5.config(), attn_implementation=attention)
        model = made.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        forward: Any = torch.compile(model) if compiled else model
        cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            with cast:
                loss = forward(input_ids=self._inputs, labels=self._labels).loss
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            return float(loss.detach())

        return step
