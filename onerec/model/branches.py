"""Branches of a residual stream: its norm, what is computed from that, and the sum that the norm needs first.

Where compiled kernels compute a branch it is one operation, forward and backward; else it is put together from its
modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from onerec.model import backend
from onerec.model.attention import CrossAttention, SelfAttention
from onerec.model.backend import Attending, Branch, BranchGradients, Flow, Kernels, Stream
from onerec.model.norm import EPSILON, ResidualNorm
from onerec.model.swiglu import FeedForward


class _FeedForward(torch.autograd.Function):
    """The stream and what is added to it, gain and weights -> their sum, and what the branch adds."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, x: Tensor, added: Tensor | None, *weights: Tensor) -> tuple[Tensor, Tensor]:
        stream = _stream(x, added, weights[0])
        branch = kernels.feed_forward(stream, weights[1:])
        ctx.kernels, ctx.added_dtype = kernels, None if added is None else added.dtype
        ctx.save_for_backward(branch.total, *weights, *branch.saved)
        ctx.set_materialize_grads(False)
        return _stream_out(x, added, branch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        total, gain, w_in, w_out, *saved = ctx.saved_tensors
        stream, flow = Stream(total, None, gain, EPSILON), _flow(ctx, total, grad_total, grad)
        found = ctx.kernels.feed_forward_backward(stream, (w_in, w_out), tuple(saved), flow)
        return None, *_to_stream(ctx, found, grad_total, grad), found.gain, *found.weights


class _Attention(torch.autograd.Function):
    """The same of attention; after the gain and the weights comes the memory, where there is one."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them so
        ctx: Any,
        kernels: Kernels,
        heads: int,
        bias: Tensor | None,
        memory: Tensor | None,
        x: Tensor,
        added: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        states = None if memory is None else memory.flatten(0, 1).contiguous()
        branch = kernels.attention_branch(
            _stream(x, added, weights[0]), weights[1:], Attending(len(x), heads, bias, states)
        )
        ctx.kernels, ctx.added_dtype = kernels, None if added is None else added.dtype
        ctx.batch, ctx.heads, ctx.bias, ctx.count = len(x), heads, bias, len(weights)
        ctx.memory_shape = None if memory is None else memory.shape
        ctx.save_for_backward(branch.total, *weights, *(() if states is None else (states,)), *branch.saved)
        ctx.set_materialize_grads(False)
        return _stream_out(x, added, branch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        total, *rest = ctx.saved_tensors
        (gain, *weights), saved = rest[: ctx.count], rest[ctx.count :]
        memory = None if ctx.memory_shape is None else saved.pop(0)
        stream, flow = Stream(total, None, gain, EPSILON), _flow(ctx, total, grad_total, grad)
        attending = Attending(ctx.batch, ctx.heads, ctx.bias, memory)
        found = ctx.kernels.attention_branch_backward(stream, tuple(weights), attending, tuple(saved), flow)
        states = None if found.memory is None else found.memory.view(ctx.memory_shape)
        return None, None, None, states, *_to_stream(ctx, found, grad_total, grad), found.gain, *found.weights


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


def _stream(x: Tensor, added: Tensor | None, gain: Tensor) -> Stream:
    return Stream(_rows(x), None if added is None else _rows(added), gain, EPSILON)


def _stream_out(x: Tensor, added: Tensor | None, branch: Branch) -> tuple[Tensor, Tensor]:
    return x if added is None else branch.total.view(x.shape), branch.out.view(x.shape)


def _flow(ctx: Any, total: Tensor, grad_total: Tensor | None, grad: Tensor | None) -> Flow:
    """What flows back, in rows."""
    out = torch.zeros(total.shape, dtype=torch.bfloat16) if grad is None else _rows(grad)
    return Flow(None if grad_total is None else _rows(grad_total), out, ctx.added_dtype or total.dtype)


def _to_stream(
    ctx: Any, found: BranchGradients, grad_total: Tensor | None, grad: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the stream and of what was added to it, in their shape."""
    given = grad_total if grad is None else grad
    assert given is not None, "autograd asks for no backward of what nothing depends on"
    return found.x.view(given.shape), None if ctx.added_dtype is None else found.added.view(given.shape)


def feed_forward(
    norm: ResidualNorm, ffn: FeedForward, x: Tensor, added: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The stream [..., d] and what is added to it, None for nothing -> (their sum, what the branch adds to it)."""
    weights = norm.weight, ffn.w_in.weight, ffn.w_out.weight
    kernels = backend.branching(x, added, *weights, dtype=dtype, inner=ffn.w_in.out_features)
    if kernels is not None:
        both: tuple[Tensor, Tensor] = _FeedForward.apply(kernels, x, added, *weights)  # type: ignore[no-untyped-call]
        return both
    x, normed = norm(x, added, dtype)
    return x, ffn(normed)


def self_attention(  # noqa: PLR0917 - a module's parts and what it gets
    norm: ResidualNorm,
    attention: SelfAttention,
    x: Tensor,
    added: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The same of self-attention: x [B, T, d], bias as in `attend`."""
    weights = norm.weight, attention.qkv.weight, attention.out.weight
    kernels = _attending(attention.heads, bias, x, added, weights, dtype)
    if kernels is not None:
        both: tuple[Tensor, Tensor] = _Attention.apply(  # type: ignore[no-untyped-call]
            kernels, attention.heads, bias, None, x, added, *weights
        )
        return both
    x, normed = norm(x, added, dtype)
    return x, attention(normed, bias)


def cross_attention(  # noqa: PLR0917 - as above, and the memory
    norm: ResidualNorm,
    attention: CrossAttention,
    x: Tensor,
    added: Tensor | None,
    memory: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same of attention over a memory [B, S, d], in whose dtype products are."""
    weights = norm.weight, attention.q.weight, attention.kv.weight, attention.out.weight
    kernels = _attending(attention.heads, bias, x, added, weights, memory.dtype)
    if kernels is not None:
        both: tuple[Tensor, Tensor] = _Attention.apply(  # type: ignore[no-untyped-call]
            kernels, attention.heads, bias, memory, x, added, *weights
        )
        return both
    x, normed = norm(x, added, memory.dtype)
    return x, attention(normed, memory, bias)


def _attending(  # noqa: PLR0917 - what decides it
    heads: int,
    bias: Tensor | None,
    x: Tensor,
    added: Tensor | None,
    weights: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> Kernels | None:
    if bias is not None and bias.requires_grad:
        return None
    return backend.branching(x, added, *weights, dtype=dtype, inner=x.shape[-1] // heads)
