"""Training steps of fixed shapes, recorded as CUDA graphs.

A step of these models is hundreds of kernels of microseconds: started one by one they wait for the host, and many
processes on one GPU wait for one another. A graph starts them all at once. What it reads and writes stays in place, so
a step's inputs are copied to where the graph expects them, and nothing of a step is told to the host before it asks.
On CPU the same steps run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from onerec.errors import CheckFailedError

AS_THEY_ARE = 3
"""Steps before the first that is recorded: they make the optimizer's state and load the kernels."""


class RecordedSteps:
    """Steps of AdamW on a model; `loss` gets a width and the inputs, and makes the same shapes for the same width."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        *,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`inputs` are of the shapes and dtypes of all steps' and on the model's device; `after` ends every step."""
        self._model, self._loss, self._clip_norm, self._after = model, loss, clip_norm, after
        self._inputs = [each.clone() for each in inputs]
        self._device = self._inputs[0].device
        self._gpu = self._device.type == "cuda"
        self._rate = torch.zeros((), device=self._device)
        self._optimizer = AdamW(
            model.parameters(),
            lr=self._rate if self._gpu else 0.0,
            betas=betas,
            weight_decay=weight_decay,
            fused=True,
            capturable=self._gpu,
        )
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._stream = torch.cuda.Stream(self._device) if self._gpu else None  # type: ignore[no-untyped-call]
        self._sum = torch.zeros((), device=self._device)
        self._steps = self._counted = 0
        if self._stream is not None:  # what is made here is there before the first step
            self._stream.wait_stream(torch.cuda.current_stream())

    def step(self, width: int, inputs: Sequence[Tensor], learning_rate: float) -> None:
        """One step; the inputs are on the model's device."""
        with torch.cuda.stream(self._stream):
            for place, new in zip(self._inputs, inputs, strict=True):
                place.copy_(new)
            self._set_rate(learning_rate)
            if not self._gpu or self._steps < AS_THEY_ARE:
                self._learn(width)
            else:
                self._graph(width).replay()
        self._steps += 1
        self._counted += 1

    def mean_loss(self, what: str) -> float:
        """Of the steps since the last call; waits for them. Raises CheckFailedError where it is not finite."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        mean = float(self._sum) / max(1, self._counted)
        self._sum.zero_()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        self._counted = 0
        if not torch.isfinite(torch.tensor(mean)):
            raise CheckFailedError(f"The loss of {what} is {mean}.", "Lower its learning rate.")
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Of the optimizer; the model's is the caller's."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, before the first step."""
        self._optimizer.load_state_dict(state)

    def _set_rate(self, learning_rate: float) -> None:
        if self._gpu:
            self._rate.fill_(learning_rate)
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate

    def _learn(self, width: int) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(width, *self._inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self._model.parameters(), self._clip_norm, foreach=True)
        self._optimizer.step()
        self._after()
        self._sum += loss.detach()

    def _graph(self, width: int) -> torch.cuda.CUDAGraph:
        if width not in self._graphs:
            loss = self._loss(width, *self._inputs)  # loads what this width needs; its gradients are dropped
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            pool = next(iter(self._graphs.values())).pool() if self._graphs else None
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                self._learn(width)
            self._graphs[width] = graph
        return self._graphs[width]
