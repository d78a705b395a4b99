"""Sparse mixture of experts, the decoder's FFN (paper, section 3.2), balanced without an auxiliary loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onerec.model import elementwise
from onerec.model.elementwise import Kernels, Routed
from onerec.model.precision import widen
from onerec.model.rows import collect_rows, grouped_product, on_device, spread_rows
from onerec.model.swiglu import swiglu

ROUND_ROWS = 32
"""Rows of an expert are rounded up to this in bfloat16 training."""


class _Compiled(torch.autograd.Function):
    """Rows by their experts, mixed by their gates, by compiled kernels; `load` is told by the way."""

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


class SparseMoE(nn.Module):
    """y_t = sum_i g_it FFN_i(x_t): softmax over all experts, then the top k; gates are not renormalised.

    `bias` moves the selection only, never the gates (loss-free balancing, arXiv 2408.15664); `update_bias` is
    called after each optimizer step. Rows are sorted by expert and multiplied in contiguous slices; none is
    dropped. `load` int64 [experts] counts the rows that each expert got in the last forward.
    """

    bias: Tensor
    load: Tensor

    def __init__(self, d_model: int, hidden: int, experts: int, active: int) -> None:
        super().__init__()
        self.experts, self.active = experts, active
        self.centroids = nn.Parameter(torch.empty(experts, d_model))  # e_i of the paper's gate
        self.w_in = nn.Parameter(torch.empty(experts, d_model, 2 * hidden))  # gate and value of SwiGLU
        self.w_out = nn.Parameter(torch.empty(experts, hidden, d_model))
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts, dtype=torch.int64), persistent=False)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates float32 [R, k] and experts int64 [R, k] of rows x [R, d], best first."""
        # Experts lie on the first dimension: a softmax over rows of a few numbers is twenty times slower.
        scores = torch.softmax(torch.matmul(widen(self.centroids), widen(x).t()), dim=0)  # [E, R]
        chosen = torch.topk(scores.detach() + self.bias.to(scores.dtype).unsqueeze(1), self.active, dim=0).indices
        return scores.gather(0, chosen).t(), chosen.t()

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Rows x [R, d] -> [R, d] without the residual; float32 where the parameters are.

        `counted` bool [R] are the rows that enter `load`, all for None.
        """
        gates, chosen = self.route(x)
        kernels = elementwise.mixing(x, gates, self.w_in, self.w_out)
        if kernels is not None:
            mixed: Tensor
            mixed, self.load = _Compiled.apply(kernels, x, gates, chosen, self.w_in, self.w_out)  # type: ignore[no-untyped-call]
            self._count(chosen, counted)
            return mixed
        groups, source, places = self._layout(chosen, x.dtype)
        self._count(chosen, counted)
        rows = spread_rows(x, source, places)
        hidden = swiglu(grouped_product(rows, self.w_in.to(x.dtype), groups))
        outputs = grouped_product(hidden, self.w_out.to(x.dtype), groups)
        picked = collect_rows(outputs, places.flatten()).view(*places.shape, x.shape[1])  # [R, k, d]
        mixed = picked[:, 0] * gates[:, :1]
        for place in range(1, self.active):
            mixed = mixed + picked[:, place] * gates[:, place : place + 1]
        return mixed

    def _count(self, chosen: Tensor, counted: Tensor | None) -> None:
        """Leave out of `load` the rows that do not enter it."""
        if counted is not None:
            routed = chosen.unsqueeze(-1) == torch.arange(self.experts, device=chosen.device)  # [R, k, E]
            self.load = (routed & counted[:, None, None]).sum((0, 1))

    def _layout(self, chosen: Tensor, dtype: torch.dtype) -> tuple[list[int] | Tensor, Tensor, Tensor]:
        """Where rows go: (groups for `grouped_product`, source row of each slot [P], slots of each row [R, k]).

        Slots lie expert by expert; within one, in the order of the rows.
        """
        flat = chosen.flatten()
        order = torch.argsort(flat, stable=True)
        self.load = _loads(flat, order, self.experts)
        # oneDNN compiles bfloat16 products for each shape anew: rounding up the row counts keeps shapes few.
        unit = ROUND_ROWS if dtype == torch.bfloat16 and torch.is_grad_enabled() else 1
        sizes = (self.load + unit - 1).div(unit, rounding_mode="floor") * unit
        ends = sizes.cumsum(0)
        shift = ends - sizes - (self.load.cumsum(0) - self.load)  # empty slots before each expert
        groups: list[int] | Tensor
        if on_device(flat, dtype):  # as many slots as there can be: to count them would be to wait
            groups, slots = ends.int(), len(flat) + self.experts * (unit - 1)
        else:
            groups = sizes.tolist()
            slots = sum(groups)
        slot = torch.arange(len(flat), device=flat.device) + shift[flat[order]]
        places = torch.empty_like(flat).scatter_(0, order, slot)
        source = places.new_zeros(slots).scatter_(0, slot, order.div(self.active, rounding_mode="floor"))
        return groups, source, places.view_as(chosen)

    @torch.no_grad()
    def update_bias(self, rate: float) -> None:
        """Raise the bias of under-loaded experts by `rate` and lower that of over-loaded ones."""
        load = self.load.to(self.bias.dtype)
        self.bias += rate * torch.sign(load.mean() - load)


def _loads(flat: Tensor, order: Tensor, experts: int) -> Tensor:
    """How often each expert is in `flat` int64 [N], which `order` sorts: int64 [E]."""
    if not flat.is_cuda:
        return torch.bincount(flat, minlength=experts)
    # There, bincount would wait for the device.
    each = torch.arange(experts + 1, device=flat.device)
    return torch.searchsorted(flat[order], each).diff()
