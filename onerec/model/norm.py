"""RMSNorm whose training pass reads and writes memory half as often as the composite of torch."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from onerec.model import backend
from onerec.model.backend import Kernels, Normed

EPSILON = torch.finfo(torch.float32).eps
"""As nn.RMSNorm has it by default."""


class _Normalise(torch.autograd.Function):
    """X [..., d] float32 times its inverse root mean square and a gain [d], as `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        width = x.shape[-1]
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse.square_().mul_(1.0 / width).add_(EPSILON).rsqrt_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        out: Tensor = (unit * weight).to(dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, weight = ctx.saved_tensors
        grad = grads[0].to(unit.dtype)
        along = grad * unit
        mean = torch.matmul(along, weight).unsqueeze(-1).mul_(-1.0 / unit.shape[-1])
        grad_x = torch.addcmul(grad * weight, unit, mean).mul_(inverse)
        return grad_x, along.flatten(0, -2).sum(0), None


class _Compiled(torch.autograd.Function):
    """X [..., d] + `added`, and its norm as `dtype`; the gradients of both meet in one pass of the backward."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them so
        ctx: Any, kernels: Kernels, x: Tensor, added: Tensor | None, weight: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        rows, more = _rows(x), None if added is None else _rows(added)
        total, out, inverse = kernels.norm(rows, more, weight, dtype, EPSILON)
        ctx.kernels, ctx.added_dtype = kernels, None if added is None else added.dtype
        ctx.save_for_backward(total, inverse, weight)
        ctx.set_materialize_grads(False)
        return x if added is None else total.view(x.shape), out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            added = None if grad_total is None or ctx.added_dtype is None else grad_total.to(ctx.added_dtype)
            return None, grad_total, added, None, None
        total, inverse, weight = ctx.saved_tensors
        along = None if grad_total is None else _rows(grad_total)
        dtype = ctx.added_dtype or total.dtype
        found = ctx.kernels.norm_backward(_rows(grad), along, Normed(total, grad, inverse), weight, dtype)
        added = None if ctx.added_dtype is None else found.added.view(grad.shape)
        return None, found.x.view(grad.shape), added, found.gain, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


class RMSNorm(nn.Module):
    """Root mean square norm with a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """[..., d] -> [..., d], as `dtype` or that of x."""
        dtype = dtype or x.dtype
        kernels = _kernels(self.weight, x, dtype)
        if kernels is not None:
            _, normed = _Compiled.apply(kernels, x, None, self.weight, dtype)  # type: ignore[no-untyped-call]
            return cast(Tensor, normed)
        if torch.is_grad_enabled() and not x.is_cuda:  # CUDA has one kernel for all of it
            out: Tensor = _Normalise.apply(x, self.weight, dtype)  # type: ignore[no-untyped-call]
            return out
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPSILON).to(dtype)


class ResidualNorm(RMSNorm):
    """The norm of what a residual stream becomes, with the stream: it has two uses, and they are computed together."""

    def forward(  # type: ignore[override]
        self, x: Tensor, added: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """X [..., d] and what a branch adds to it, None for nothing -> (their sum, its norm as `dtype`)."""
        kernels = _kernels(self.weight, x, dtype, *(() if added is None else (added,)))
        if kernels is None:
            total = x if added is None else x + added
            return total, super().forward(total, dtype)
        both: tuple[Tensor, Tensor] = _Compiled.apply(kernels, x, added, self.weight, dtype)  # type: ignore[no-untyped-call]
        return both


def _kernels(weight: Tensor, x: Tensor, dtype: torch.dtype, *added: Tensor) -> Kernels | None:
    """What may compute it: the stream and the gain are float32, as `norm` of `Kernels` has them."""
    if not weight.dtype == x.dtype == torch.float32 or dtype not in backend.DTYPES:
        return None
    return backend.fitting(x, weight, *added, width=x.shape[-1])
