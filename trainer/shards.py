"""Data-parallel gradients over the threads of one process: two cores give nearly twice the rate of one.

Inside one operation a second thread gains far less at these sizes. The bits depend on the number of shards, not
on timing: every shard's gradient is a function of its part of the batch, and they are added in order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from onerec.model.moe import SparseMoE

Model = TypeVar("Model", bound=nn.Module)


class Shards(Generic[Model]):
    """Replicas of a model that share its weights and have gradients of their own; the first is the model itself."""

    def __init__(self, model: Model, count: int) -> None:
        self._replicas = [model, *(_replica(model) for _ in range(count - 1))]
        self._pool = (
            ThreadPoolExecutor(count - 1, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None
        )

    def __len__(self) -> int:
        return len(self._replicas)

    def backward(self, losses: Sequence[Callable[[Model], Tensor]]) -> float:
        """The model's gradient of the sum of `losses`, at most one a shard, each of one replica; the sum.

        Gradients that were there before are replaced. Expert loads are those of all shards together.
        """
        for replica in self._replicas:
            replica.zero_grad(set_to_none=True)
        jobs = [
            self._pool.submit(_backward, replica, loss)
            for replica, loss in zip(self._replicas[1:], losses[1:], strict=False)
            if self._pool is not None
        ]
        values = [_backward(self._replicas[0], losses[0]), *(job.result() for job in jobs)]
        for replica in self._replicas[1 : len(losses)]:
            _add_gradients(self._replicas[0], replica)
        return sum(values)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _replica(model: Model) -> Model:
    """A copy whose parameters and buffers lie in the model's memory."""
    replica = copy.deepcopy(model)
    originals = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in (*replica.named_parameters(), *replica.named_buffers()):
        if not name.endswith(".load"):
            tensor.data = originals[name].data
    return replica


def _backward(model: Model, loss: Callable[[Model], Tensor]) -> float:
    value = loss(model)
    value.backward()  # type: ignore[no-untyped-call]
    return value.item()


def _add_gradients(model: nn.Module, replica: nn.Module) -> None:
    for mine, other in zip(model.parameters(), replica.parameters(), strict=True):
        if other.grad is not None:
            mine.grad = other.grad if mine.grad is None else mine.grad.add_(other.grad)
    for own, far in zip(model.modules(), replica.modules(), strict=True):
        if isinstance(own, SparseMoE) and isinstance(far, SparseMoE):
            own.load = own.load + far.load
