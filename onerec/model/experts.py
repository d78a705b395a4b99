"""Rows through their experts: sorted by expert, multiplied in contiguous slices, mixed by gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onerec.model import backend
from onerec.model.backend import Kernels, Routed
from onerec.model.rows import collect_rows, grouped_product, on_device, spread_rows
from onerec.model.swiglu import swiglu

ROUND_ROWS = 32
"""Rows of an expert are rounded up to this in bfloat16 training by torch."""


class _Compiled(torch.autograd.Function):
    """`mix` by compiled kernels."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them so
        ctx: Any, kernels: Kernels, x: Tensor, gates: Tensor, chosen: Tensor, w_in: Tensor, w_out: Tensor
    ) -> tuple[Tensor, Tensor]:
        routed = Routed(x.contiguous(), gates.contiguous(), chosen.contiguous())
        mixed, load, saved = kernels.experts(routed, (w_in, w_out))
        ctx.kernels = kernels
        ctx.save_for_backward(*routed, w_in, w_out, *saved)
        ctx.mark_non_differentiable(load)
        return mixed, load

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, chosen, w_in, w_out, *saved = ctx.saved_tensors
        routed = Routed(x, gates, chosen)
        found = ctx.kernels.experts_backward(routed, (w_in, w_out), tuple(saved), grad.contiguous())
        return None, found.x, found.gates, None, *found.weights


def mix(x: Tensor, gates: Tensor, chosen: Tensor, w_in: Tensor, w_out: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x [R, d] by the SwiGLU of their experts `chosen` int64 [R, k], mixed by `gates` [R, k].

    Weights [E, d, 2h], gates first, and [E, h, d]. Returns [R, d] in the dtype of the gates, and how many rows each
    expert got, int64 [E].
    """
    kernels = backend.mixing(x, gates, w_in, w_out)
    if kernels is not None:
        both: tuple[Tensor, Tensor] = _Compiled.apply(kernels, x, gates, chosen, w_in, w_out)  # type: ignore[no-untyped-call]
        return both
    load, groups, source, places = _layout(chosen, len(w_in), x.dtype)
    hidden = swiglu(grouped_product(spread_rows(x, source, places), w_in.to(x.dtype), groups))
    outputs = grouped_product(hidden, w_out.to(x.dtype), groups)
    picked = collect_rows(outputs, places.flatten()).view(*places.shape, x.shape[1])  # [R, k, d]
    mixed = picked[:, 0] * gates[:, :1]
    for place in range(1, chosen.shape[1]):
        mixed = mixed + picked[:, place] * gates[:, place : place + 1]
    return mixed, load


class _Layout(NamedTuple):
    """Where rows go. Slots lie expert by expert; within one, in the order of the rows."""

    load: Tensor  # int64 [E]
    groups: list[int] | Tensor  # for `grouped_product`
    source: Tensor  # int64 [P]: the row of each slot
    places: Tensor  # int64 [R, k]: the slots of each row


def _layout(chosen: Tensor, experts: int, dtype: torch.dtype) -> _Layout:
    flat = chosen.flatten()
    order = torch.argsort(flat, stable=True)
    load = _loads(flat, order, experts)
    # oneDNN compiles bfloat16 products for each shape anew: rounding up the row counts keeps shapes few.
    unit = ROUND_ROWS if dtype == torch.bfloat16 and torch.is_grad_enabled() else 1
    sizes = (load + unit - 1).div(unit, rounding_mode="floor") * unit
    ends = sizes.cumsum(0)
    shift = ends - sizes - (load.cumsum(0) - load)  # empty slots before each expert
    groups: list[int] | Tensor
    if on_device(flat, dtype):  # as many slots as there can be: to count them would be to wait
        groups, slots = ends.int(), len(flat) + experts * (unit - 1)
    else:
        groups = sizes.tolist()
        slots = sum(groups)
    slot = torch.arange(len(flat), device=flat.device) + shift[flat[order]]
    places = torch.empty_like(flat).scatter_(0, order, slot)
    source = places.new_zeros(slots).scatter_(0, slot, order.div(chosen.shape[1], rounding_mode="floor"))
    return _Layout(load, groups, source, places.view_as(chosen))


def _loads(flat: Tensor, order: Tensor, experts: int) -> Tensor:
    """How often each expert is in `flat` int64 [N], which `order` sorts: int64 [E]."""
    if not flat.is_cuda:
        return torch.bincount(flat, minlength=experts)
    # There, bincount would wait for the device.
    each = torch.arange(experts + 1, device=flat.device)
    return torch.searchsorted(flat[order], each).diff()
