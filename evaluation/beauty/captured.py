"""A training step as a CUDA graph: a model of this size otherwise waits for its kernels to be launched.

On a CPU, and where a graph cannot be captured, the step is run as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
WARM_UP = 3
"""Steps before the capture, which allocate what the optimizer keeps. They count as steps of training."""

Step = Callable[[Tensor], Tensor]
"""Takes int64 [B] rows of samples, returns a loss."""


class Captured:
    """Runs `step` for batches of one size; its loss is read from the same tensor after each call."""

    def __init__(self, step: Step, size: int, device: torch.device) -> None:
        self._step = step
        self._rows = torch.zeros(size, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss = torch.zeros((), device=device)
        self._calls = 0
        self._capturable = device.type == "cuda"

    def __call__(self, rows: Tensor) -> Tensor:
        """One step on `rows` [B]."""
        if not self._capturable:
            return self._step(rows)
        self._rows.copy_(rows)
        self._calls += 1
        if self._graph is not None:
            self._graph.replay()
        elif self._calls <= WARM_UP:
            self._aside()
        else:
            self._capture()
        return self._loss

    def _aside(self) -> None:
        """A warm-up step, on a stream of its own as captures want it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._loss = self._step(self._rows)
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._loss = self._step(self._rows)
        except RuntimeError as error:
            LOG.warning("no CUDA graph of this step, which is slower: %s", str(error).splitlines()[0])
            self._capturable = False
            torch.cuda.synchronize()
            self._loss = self._step(self._rows)
            return
        self._graph = graph
        graph.replay()  # the capture itself computes nothing
