"""Compiled kernels that may stand in for torch in training: none unless they have been put here.

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


class Heads(NamedTuple):
    """Heads as projections have them: a head's elements lie side by side, its neighbours beside them."""

    query: Tensor  # bfloat16 [B, T, H, Dh]
    key: Tensor  # [B, S, H, Dh]
    value: Tensor  # [B, S, H, Dh]


class Attended(NamedTuple):
    """What attention gives out, and what its backward needs."""

    out: Tensor  # bfloat16 [B, T, H, Dh]
    saved: Tensor


class Stream(NamedTuple):
    """A residual stream before a branch, and the norm that the branch begins with."""

    x: Tensor  # float32 [R, d]
    added: Tensor | None  # [R, d]: what the branch before adds to it
    gain: Tensor  # float32 [d]
    epsilon: float


class Branch(NamedTuple):
    """What a branch makes of a stream, and what its backward needs."""

    total: Tensor  # float32 [R, d]: the stream with what was added
    out: Tensor  # bfloat16 [R, d]: what this branch adds
    saved: tuple[Tensor, ...]


class Attending(NamedTuple):
    """How an attention branch attends; rows of the stream are those of samples, one after the other."""

    batch: int
    heads: int
    bias: Tensor | None  # as in `softmax`
    memory: Tensor | None  # bfloat16 [B * S, d]: what keys and values are made of, the stream's norm where it is None


class Flow(NamedTuple):
    """What flows back into a branch."""

    total: Tensor | None  # float32 [R, d]: the gradient of the stream behind it
    out: Tensor  # bfloat16 [R, d]: of what it adds
    added_dtype: torch.dtype  # in which the gradient of what was added is wanted


class BranchGradients(NamedTuple):
    """What flows back from a branch and along the stream."""

    x: Tensor  # float32 [R, d]
    added: Tensor  # the same, in the dtype of what was added
    gain: Tensor  # float32 [d]
    weights: tuple[Tensor, ...]
    memory: Tensor | None


class Routed(NamedTuple):
    """Rows and the experts that they are for."""

    x: Tensor  # bfloat16 [R, d]
    gates: Tensor  # float32 [R, k]
    chosen: Tensor  # int64 [R, k]


class Mixed(NamedTuple):
    """What experts make of rows, and what their backward needs."""

    mixed: Tensor  # float32 [R, d]
    load: Tensor  # int64 [E]: rows of each expert
    saved: tuple[Tensor, ...]


class RoutedGradients(NamedTuple):
    """What flows back from experts."""

    x: Tensor
    gates: Tensor
    weights: tuple[Tensor, Tensor]


class Kernels(Protocol):
    """All tensors are on the CPU and without gaps; dtypes are float32 or, where nothing else is said, bfloat16 too."""

    name: str
    """Kernels of one name give the same bits."""
    lanes: int
    """Rows of norms and of SwiGLU are multiples of it."""
    head_unit: int
    """Widths of heads are multiples of it where `attention` computes; 0 where it does not."""
    branch_unit: int
    """The same of branches and experts: of heads, of the stream and of what SwiGLU gets."""

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

    def attention(self, heads: Heads, bias: Tensor | None, scale: float) -> Attended:
        """Products and softmax of attention at once; `bias` as in `softmax`."""

    def attention_backward(
        self, heads: Heads, bias: Tensor | None, scale: float, saved: Tensor, grad: Tensor, *, to: Heads
    ) -> None:
        """From the gradient [B, T, H, Dh] of `out`: writes those of the heads into `to`, which lies as they do."""

    def feed_forward(self, stream: Stream, weights: tuple[Tensor, ...]) -> Branch:
        """Norm, product, SwiGLU, product. Weights float32 [2h, d], gates first, and [d, h]."""

    def feed_forward_backward(
        self, stream: Stream, weights: tuple[Tensor, ...], saved: tuple[Tensor, ...], flow: Flow
    ) -> BranchGradients:
        """`stream` as it was summed up: its `x` is the forward's `total`."""

    def attention_branch(self, stream: Stream, weights: tuple[Tensor, ...], attending: Attending) -> Branch:
        """Norm, projections, attention, product.

        Weights float32: [3d, d] to queries, keys and values and [d, d] of the result, or [d, d] to queries, [2d, d] of
        the memory to keys and values and [d, d] of the result.
        """

    def attention_branch_backward(
        self, stream: Stream, weights: tuple[Tensor, ...], attending: Attending, saved: tuple[Tensor, ...], flow: Flow
    ) -> BranchGradients:
        """`stream` as it was summed up: its `x` is the forward's `total`."""

    def experts(self, routed: Routed, weights: tuple[Tensor, Tensor]) -> Mixed:
        """Rows by their experts' SwiGLU, mixed by gates. Weights float32 [E, d, 2h], gates first, and [E, h, d]."""

    def experts_backward(
        self, routed: Routed, weights: tuple[Tensor, Tensor], saved: tuple[Tensor, ...], grad: Tensor
    ) -> RoutedGradients:
        """From the gradient float32 [R, d] of `mixed`."""


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


def attending(heads: int, *projections: Tensor) -> Kernels | None:
    """The kernels, where they compute attention of bfloat16 projections to queries, keys and values; else None."""
    kernels = fitting(*projections)
    if kernels is None or not kernels.head_unit or any(part.dtype != torch.bfloat16 for part in projections):
        return None
    width = sum(part.shape[-1] for part in projections) // 3
    return kernels if width % (heads * kernels.head_unit) == 0 else None


def branching(stream: Tensor, added: Tensor | None, *weights: Tensor, dtype: torch.dtype, inner: int) -> Kernels | None:
    """The kernels, where they compute a branch of `stream` whose products are in `dtype`; else None.

    `inner` is a head's width, or that of what SwiGLU gets.
    """
    given = (stream, *weights, *(() if added is None else (added,)))
    kernels = _multiplying(*given, widths=(stream.shape[-1], inner))
    whole = all(tensor.dtype == torch.float32 for tensor in (stream, *weights))
    return kernels if whole and dtype == torch.bfloat16 else None


def mixing(x: Tensor, gates: Tensor, w_in: Tensor, w_out: Tensor) -> Kernels | None:
    """The kernels, where they compute rows x by experts of these weights; else None."""
    kernels = _multiplying(x, gates, w_in, w_out, widths=(w_in.shape[1], w_in.shape[2]))
    whole = all(tensor.dtype == torch.float32 for tensor in (gates, w_in, w_out))
    return kernels if whole and x.dtype == torch.bfloat16 else None


def _multiplying(*tensors: Tensor, widths: tuple[int, ...]) -> Kernels | None:
    kernels = fitting(*tensors)
    if kernels is None or not kernels.branch_unit or torch.is_autocast_enabled("cpu"):
        return None
    return None if any(width % kernels.branch_unit for width in widths) else kernels
