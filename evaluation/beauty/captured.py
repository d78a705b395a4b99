"""A training step as CUDA graphs: a model of this size otherwise waits for its kernels to be launched.

A graph has fixed shapes, so there is one for each of a few widths of history. On a CPU, and where a graph cannot be
captured, the step is run as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
WARM_UP = 2
"""Steps of each width before its capture, which allocate what libraries and the optimizer keep. They train, too."""
WIDTHS = (4, 8, 12, 20)

Step = Callable[[Tensor, int], Tensor]
"""Takes int64 [B] rows of samples and how many items of their histories are read; returns a loss."""


class Captured:
    """Runs `step` for batches of one size. A loss it returns is valid until the next call."""

    def __init__(self, step: Step, size: int, device: torch.device) -> None:
        self._step = step
        self._rows = torch.zeros(size, dtype=torch.int64, device=device)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._calls: dict[int, int] = {}
        self._capturable = device.type == "cuda"

    def __call__(self, rows: Tensor, longest: int) -> Tensor:
        """One step on `rows` [B], none of whose histories is longer than `longest`."""
        if not self._capturable:
            return self._step(rows, longest)
        width = next((width for width in WIDTHS if width >= longest), longest)
        self._rows.copy_(rows)
        self._calls[width] = self._calls.get(width, 0) + 1
        if width not in self._graphs and self._calls[width] <= WARM_UP:
            return self._aside(width)
        if width not in self._graphs and not self._capture(width):
            return self._step(self._rows, width)
        graph, loss = self._graphs[width]
        graph.replay()
        return loss

    def _aside(self, width: int) -> Tensor:
        """A warm-up step, on a stream of its own as captures want it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(self._rows, width)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, width: int) -> bool:
        """Capture the step of a width, which computes nothing yet; False where that does not work."""
        graph = torch.cuda.CUDAGraph()
        others = next((own.pool() for own, _ in self._graphs.values()), None)
        try:
            with torch.cuda.graph(graph, pool=others):
                loss = self._step(self._rows, width)
        except RuntimeError as error:
            LOG.warning("no CUDA graph of this step, which is slower: %s", str(error).splitlines()[0])
            self._capturable = False
            torch.cuda.synchronize()
            return False
        self._graphs[width] = graph, loss
        return True
