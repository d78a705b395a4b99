"""Gradients of a step's sessions as CUDA graphs: recorded once for a shape of batch, then replayed.

Forward and backward of both models are some thousand small kernels, and starting one from Python takes longer than
running it; a graph starts them together. What it reads and writes stays in place: a step's batch is copied to where
the graph expects it, and its gradients become those of the parameters. Clipping, the check for what is not finite and
AdamW follow as ever. A shape that comes for the first time is computed kernel by kernel: the same kernels on the same
numbers, so a step has the same bits whether or not its shape has been recorded, and a rerun need not record the same.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.precision import product_dtype
from onerec.model.reward import RewardModel
from trainer import fixed_shapes
from trainer.batches import SessionBatch
from trainer.fixed_shapes import Targets

LOG = logging.getLogger(__name__)
RECORDED_FROM = 2
"""A shape's graph is made when it comes for the so many-th time."""
KEPT = 4
"""Shapes whose graphs are kept, those used last: each holds gradients of its own."""


WIDEST = 512
"""Of a model: kernels of a wider one take longer than their start, and what fixed shapes compute for nothing, too."""


class Losses(NamedTuple):
    """Scalars; None for what was not asked."""

    next_token: Tensor | None
    reward: Tensor | None


@dataclass(slots=True)
class _Computed:
    """What a forward and backward leaves behind."""

    losses: Losses
    gradients: list[Tensor | None]
    """Of all parameters of both models."""
    loads: list[Tensor]
    """Of the experts of each block."""


@dataclass(slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    places: list[Tensor]
    """Of its inputs."""
    computed: _Computed


class RecordedGradients:
    """Of two models on a CUDA device; void when their parameters move."""

    def __init__(self, onerec: OneRec, reward: RewardModel) -> None:
        self._onerec, self._reward = onerec, reward
        self._parameters = [*onerec.parameters(), *reward.parameters()]
        self._experts = [module for module in onerec.modules() if isinstance(module, SparseMoE)]
        self._stream = torch.cuda.Stream(onerec.bos.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: Counter[Hashable] = Counter()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._failed = False

    @property
    def graphs(self) -> int:
        """How many shapes have been recorded and are kept."""
        return len(self._graphs)

    def add(
        self, batch: SessionBatch, targets: Targets, *, seed: int, next_token: bool = True, reward: bool = True
    ) -> Losses:
        """Add the gradients of a padded batch to those that the parameters have, and set the experts' loads.

        `next_token` is for batches with a covered exposure, `reward` for those of live sessions; `seed` is of
        dropout. The losses are void after the next call.
        """
        asked = (next_token, reward)
        before = [parameter.grad for parameter in self._parameters]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            computed = self._computed(batch, targets, asked, seed)
        torch.cuda.current_stream().wait_stream(self._stream)
        for parameter, old, new in zip(self._parameters, before, computed.gradients, strict=True):
            parameter.grad = new if old is None else old if new is None else old.add_(new)
        if next_token:
            for moe, load in zip(self._experts, computed.loads, strict=True):
                moe.load = load
        return computed.losses

    def _computed(self, batch: SessionBatch, targets: Targets, asked: tuple[bool, bool], seed: int) -> _Computed:
        inputs = list(tensors_of((batch, targets)))
        key = (asked, self._onerec.bf16, self._onerec.training, *(tensor.shape for tensor in inputs))
        self._seen[key] += 1
        if self._seen[key] >= RECORDED_FROM and key not in self._graphs and not self._failed:
            self._record(key, batch, targets, asked)
        torch.manual_seed(seed)
        if key not in self._graphs:
            return self._compute(batch, targets, asked)
        self._graphs.move_to_end(key)
        found = self._graphs[key]
        for place, tensor in zip(found.places, inputs, strict=True):
            place.copy_(tensor)
        found.graph.replay()
        return found.computed

    def _compute(self, batch: SessionBatch, targets: Targets, asked: tuple[bool, bool]) -> _Computed:
        for parameter in self._parameters:
            parameter.grad = None
        found = (
            fixed_shapes.next_token_loss(self._onerec, batch, targets) if asked[0] else None,
            fixed_shapes.reward_loss(self._reward, batch) if asked[1] else None,
        )
        for loss in found:
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
        losses = Losses(*(None if loss is None else loss.detach() for loss in found))
        return _Computed(losses, [each.grad for each in self._parameters], [moe.load for moe in self._experts])

    def _record(self, key: Hashable, batch: SessionBatch, targets: Targets, asked: tuple[bool, bool]) -> None:
        """Record the kernels of a shape, none of which runs.

        After a failure torch's allocator takes itself to be still recording, so it is not tried again.
        """
        own_batch, own_targets = _copied(batch), _copied(targets)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: another thread may allocate and copy meanwhile.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                computed = self._compute(own_batch, own_targets, asked)
            finally:
                graph.capture_end()
        except RuntimeError as error:
            self._failed = True
            LOG.warning("training steps cannot be recorded as CUDA graphs, from here on they are not: %s", error)
            return
        self._graphs[key] = _Graph(graph, list(tensors_of((own_batch, own_targets))), computed)
        if len(self._graphs) > KEPT:
            self._graphs.popitem(last=False)


def can_record(onerec: OneRec) -> bool:
    """Whether a model's gradients are worth it and can be: on CUDA, where products are bfloat16.

    In float32 the rows of each expert are multiplied for themselves, and the host has to know how many there are.
    """
    there = onerec.bos.device.type == "cuda" and onerec.config.d_model <= WIDEST
    return there and product_dtype(onerec.bf16, onerec.bos.detach()) == torch.bfloat16


def tensors_of(parts: Any) -> Iterator[Tensor]:
    """All tensors of dataclasses and tuples, in one order."""
    if isinstance(parts, Tensor):
        yield parts
    elif is_dataclass(parts):
        for one in fields(parts):
            yield from tensors_of(getattr(parts, one.name))
    elif isinstance(parts, tuple):
        for part in parts:
            yield from tensors_of(part)


def _copied(parts: Any) -> Any:
    """The same with tensors of its own."""
    if isinstance(parts, Tensor):
        return parts.clone()
    if is_dataclass(parts) and not isinstance(parts, type):
        return type(parts)(**{one.name: _copied(getattr(parts, one.name)) for one in fields(parts)})
    return type(parts)(map(_copied, parts))
