"""The machine's own limit: how fast it multiplies matrices, in the same turns and with as many threads."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn import functional

from bench.turns import Spec

SIZE = 1024
FLOPS = 2 * SIZE**3
TURN_S = 0.3


class Gemm:
    """Side: `torch.nn.functional.linear` of square matrices, the best of a third of a second."""

    def __init__(self, dtype: str, threads: int) -> None:
        self._dtype, self._threads = getattr(torch, dtype), threads

    def prepare(self) -> dict[str, Any]:
        """Matrices, and one product to warm up."""
        torch.set_num_threads(self._threads)
        self._x, self._weight = (torch.randn(SIZE, SIZE).to(self._dtype) for _ in range(2))
        functional.linear(self._x, self._weight)
        return {}

    def repeat(self) -> dict[str, Any]:
        """`seconds` of the fastest product and `flops_per_s`."""
        best_s, end_s = float("inf"), time.perf_counter() + TURN_S
        while time.perf_counter() < end_s:
            started_s = time.perf_counter()
            functional.linear(self._x, self._weight)
            best_s = min(best_s, time.perf_counter() - started_s)
        return {"seconds": best_s, "flops_per_s": FLOPS / best_s}


def gemm(dtype: str, threads: int) -> Spec:
    """The side to put into the turns."""
    return Spec("bench.limit:Gemm", {"dtype": dtype, "threads": threads}, threads)


def fast_dtype() -> str:
    """Bfloat16 where the processor multiplies it in hardware, else float32: what both sides then run in."""
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
