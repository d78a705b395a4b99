"""SwiGLU: the gated activation of the dense FFN and of the experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from onerec.model import backend
from onerec.model.backend import Kernels
from onerec.model.precision import Linear


class _SwiGLU(torch.autograd.Function):
    """silu(a) * b for x = [a, b] on the last dimension, whose gradient is written into one tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        activated = functional.silu(gate)
        ctx.save_for_backward(x, activated)
        return activated * value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, activated = ctx.saved_tensors
        gate, value = x.chunk(2, dim=-1)
        grad_x = torch.empty_like(x)
        grad_gate, grad_value = grad_x.chunk(2, dim=-1)
        torch.mul(activated, grads[0], out=grad_value)
        torch.ops.aten.silu_backward.grad_input(grads[0] * value, gate, grad_input=grad_gate)
        return grad_x


class _Compiled(torch.autograd.Function):
    """The same, activated again in the backward instead of kept."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.kernels = kernels
        ctx.save_for_backward(rows)
        return kernels.swiglu(rows).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (rows,) = ctx.saved_tensors
        flow = grad.reshape(-1, grad.shape[-1]).contiguous()
        return None, ctx.kernels.swiglu_backward(rows, flow).view(*grad.shape[:-1], -1)


def swiglu(x: Tensor) -> Tensor:
    """Gate and value side by side [..., 2h] -> silu(gate) * value [..., h]."""
    kernels = backend.fitting(x, width=x.shape[-1] // 2)
    if kernels is not None:
        compiled: Tensor = _Compiled.apply(kernels, x)  # type: ignore[no-untyped-call]
        return compiled
    if torch.is_grad_enabled():
        out: Tensor = _SwiGLU.apply(x)  # type: ignore[no-untyped-call]
        return out
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


class FeedForward(nn.Module):
    """The encoder's dense FFN."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.w_in = Linear(d_model, 2 * hidden)
        self.w_out = Linear(hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        out: Tensor = self.w_out(swiglu(self.w_in(x)))
        return out
