"""Kernels that may stand in for what torch computes element by element: none unless they have been put here.

Whoever trains chooses them for its process. The model asks `fitting` in each forward; what it gets computes the
backward, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)


class Normed(NamedTuple):
    """A sum of rows, and the norm of it."""

    total: Tensor  # float32 [R, d]
    out: Tensor  # [R, d]
    inverse: Tensor  # float32 [R]: one over the root mean square


class NormGradients(NamedTuple):
    """What flows back from both."""

    x: Tensor  # float32 [R, d]
    added: Tensor  # the same, in the dtype of what was added
    gain: Tensor  # float32 [d]


class Shares(NamedTuple):
    """Shares of attention, and what their backward needs."""

    share: Tensor  # in the dtype of the scores
    saved: tuple[Tensor, ...]


class Kernels(Protocol):
    """All tensors are on the CPU and without gaps; dtypes are float32 or, where nothing else is said, bfloat16 too."""

    name: str
    """Kernels of one name give the same bits."""
    lanes: int
    """Rows of norms and of SwiGLU are multiples of it."""

    def norm(self, x: Tensor, added: Tensor | None, gain: Tensor, dtype: torch.dtype, epsilon: float) -> Normed:
        """Rows x float32 [R, d] + added [R, d], and their root mean square norm as `dtype`."""

    def norm_backward(
        self, grad: Tensor, grad_total: Tensor | None, normed: Normed, gain: Tensor, added_dtype: torch.dtype
    ) -> NormGradients:
        """From the gradients of `out` and of `total`."""

    def swiglu(self, x: Tensor) -> Tensor:
        """Gates and values [R, 2h] -> silu(gate) * value [R, h]."""

    def swiglu_backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """Gradient [R, 2h] of x from that of the result."""

    def softmax(self, scores: Tensor, bias: Tensor | None, scale: float) -> Shares:
        """Softmax in float32 of scale * scores [B, H, T, S] + bias, which is broadcast; `scores` may be overwritten."""

    def softmax_backward(self, shares: Shares, bias: Tensor | None, scale: float, grad: Tensor) -> Tensor:
        """Gradient of `scores`, before their scale, from that of the shares, which may be overwritten."""


_chosen: Kernels | None = None


def use(kernels: Kernels | None) -> None:
    """Compute by these from here on, in all threads of this process; None for torch."""
    global _chosen  # noqa: PLW0603 - a process trains by one kind of kernels
    _chosen = kernels


def chosen() -> Kernels | None:
    """What this process computes by; None for torch."""
    return _chosen


@contextmanager
def using(kernels: Kernels | None) -> Iterator[None]:
    """`use` for a while."""
    before = _chosen
    use(kernels)
    try:
        yield
    finally:
        use(before)


def fitting(*tensors: Tensor, width: int = 0) -> Kernels | None:
    """The kernels, where gradients are wanted and they can compute these tensors, in rows of `width`; else None."""
    if _chosen is None or not torch.is_grad_enabled() or width % _chosen.lanes:
        return None
    fits = all(tensor.device.type == "cpu" and tensor.dtype in DTYPES and tensor.numel() for tensor in tensors)
    return _chosen if fits else None
