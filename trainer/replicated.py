"""DDP: every rank has the whole model, and its gradients are added up while the backward runs.

The buckets in which they travel stay as they are at first (that is what `find_unused_parameters` does here, at the
price of one warning of torch): rebuilt ones would let the first step after a restart add in another order than the
same step of a trainer that had been running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Model = TypeVar("Model", bound=nn.Module)
Loss = Callable[[Model], Tensor]
"""A scalar of a model, scaled to its share of the batch: what all ranks' losses add up to is the batch's."""


class LossOf(nn.Module, Generic[Model]):
    """A model behind a forward that computes any loss of it: what DDP and FSDP2 hook into."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Loss[Model]) -> Tensor:
        """The scalar that `loss` makes of the model."""
        return loss(self.model)


class Replicated(Generic[Model]):
    """A model that every rank has whole, with the same weights."""

    def __init__(self, model: Model) -> None:
        self._ddp = DistributedDataParallel(
            LossOf(model), forward_sync_buffers=False, find_unused_parameters=True, init_sync=False
        )
        self._ddp.register_comm_hook(None, lambda state, bucket: _sum(bucket))  # noqa: ARG005 - DDP names them

    def backward(self, losses: Sequence[Loss[Model]]) -> None:
        """Gradients of the sum of all ranks' losses, of which these are ours, one after the other."""
        *others, last = losses
        with self._ddp.no_sync():
            for loss in others:
                self._ddp(loss).backward()
        self._ddp(last).backward()

    def placed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights, or moments, as this rank takes them."""
        return tensors

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor, whole on every rank."""
        return tensor.detach()


def _sum(bucket: Any) -> torch.futures.Future[Tensor]:
    """DDP's communication, without its division by the number of ranks."""
    work: Any = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future
