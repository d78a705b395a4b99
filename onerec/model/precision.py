"""Mixed precision: parameters and the residual stream stay float32, matrix products run in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def product_dtype(wanted: bool, states: Tensor) -> torch.dtype:
    """The dtype of matrix products for `states`: bfloat16 where wanted and fast, else that of the states.

    A CPU without bfloat16 instructions emulates them, many times slower than float32.
    """
    if not wanted or states.dtype != torch.float32:
        return states.dtype
    fast = states.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else states.dtype


def widen(x: Tensor) -> Tensor:
    """Low precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Product(torch.autograd.Function):
    """X [R, k] times a weight [n, k] that is cast; its gradient by the product that is faster on CPUs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        low = weight.to(x.dtype)
        ctx.save_for_backward(x, low)
        ctx.weight_dtype = weight.dtype
        return torch.mm(x, low.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, low = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = torch.mm(grad, low) if needs_x else None
        grad_weight = None
        if needs_weight:
            # What is transposed gets copied first: that is the narrow one.
            narrow_x = x.shape[1] < grad.shape[1]
            product = torch.mm(x.t(), grad).t() if narrow_x else torch.mm(grad.t(), x)
            grad_weight = torch.empty_like(low, dtype=ctx.weight_dtype).copy_(product)
        return grad_x, grad_weight


class Linear(nn.Linear):
    """A product without bias in the dtype of its input: float32 weights are cast when they are used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return functional.linear(x, self.weight.to(x.dtype))
        rows: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), self.weight)  # type: ignore[no-untyped-call]
        return rows.view(*x.shape[:-1], self.out_features)
