"""Multi-head attention, with the kernel chosen in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from onerec.model import backend
from onerec.model.backend import Heads, Kernels, Shares
from onerec.model.precision import Linear, widen


class _ExplicitAttention(torch.autograd.Function):
    """Scores, softmax and mix as three steps; the products in the dtype of the inputs, the softmax in float32."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        scores = widen(torch.bmm(q, k.transpose(1, 2))).view(*query.shape[:3], key.shape[2])
        scores.mul_(query.shape[-1] ** -0.5)
        if bias is not None:
            scores.add_(bias)
        share = torch.softmax(scores, dim=-1)
        low = share.to(v.dtype).flatten(0, 1)
        ctx.save_for_backward(q, k, v, share, low)
        return torch.bmm(low, v).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, share, low = ctx.saved_tensors
        batch, heads = share.shape[:2]
        grad = grads[0].flatten(0, 1)
        grad_share = widen(torch.bmm(grad, v.transpose(1, 2))).view(share.shape)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_share, share, -1, share.dtype)
        grad_scores = grad_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype).flatten(0, 1)
        grad_q = torch.bmm(grad_scores, k).view(batch, heads, -1, q.shape[-1])
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q).view(batch, heads, -1, k.shape[-1])
        grad_v = torch.bmm(low.transpose(1, 2), grad).view(batch, heads, -1, v.shape[-1])
        return grad_q, grad_k, grad_v, None


class _CompiledAttention(torch.autograd.Function):
    """The same with compiled kernels between the products, which stay torch's."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes them so
        ctx: Any, kernels: Kernels, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
    ) -> Tensor:
        q, k, v = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        scores = torch.bmm(q, k.transpose(1, 2)).view(*query.shape[:3], key.shape[2])
        shares = kernels.softmax(scores, bias, query.shape[-1] ** -0.5)
        ctx.kernels, ctx.bias = kernels, bias
        ctx.save_for_backward(q, k, v, shares.share, *shares.saved)
        return torch.bmm(shares.share.flatten(0, 1), v).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        q, k, v, share, *saved = ctx.saved_tensors
        batch, heads = share.shape[:2]
        flow = grad.flatten(0, 1)
        grad_share = torch.bmm(flow, v.transpose(1, 2)).view(share.shape)
        shares = Shares(share, tuple(saved))
        grad_scores = ctx.kernels.softmax_backward(shares, ctx.bias, q.shape[-1] ** -0.5, grad_share).flatten(0, 1)
        grad_q = torch.bmm(grad_scores, k).view(batch, heads, -1, q.shape[-1])
        grad_k = torch.bmm(grad_scores.transpose(1, 2), q).view(batch, heads, -1, k.shape[-1])
        grad_v = torch.bmm(share.flatten(0, 1).transpose(1, 2), flow).view(batch, heads, -1, v.shape[-1])
        return None, grad_q, grad_k, grad_v, None


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention: query [B, H, T, Dh], key and value [B, H, S, Dh] -> [B, H, T, Dh].

    `bias` is added to the scores, broadcast to [B, H, T, S]; -inf forbids.

    On CPU with gradients the three steps are spelled out, because the backward of the fused CPU kernel takes
    1.5 times as long in float32 and ten times as long in bfloat16. Everywhere else the fused kernel is used.
    """
    kernels = backend.fitting(query, key, value)
    if kernels is not None and not (bias is not None and bias.requires_grad):
        compiled: Tensor = _CompiledAttention.apply(kernels, query, key, value, bias)  # type: ignore[no-untyped-call]
        return compiled
    if query.device.type == "cpu" and torch.is_grad_enabled():
        out: Tensor = _ExplicitAttention.apply(query, key, value, bias)  # type: ignore[no-untyped-call]
        return out
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=None if bias is None else bias.to(query.dtype)
    )


def padding_bias(mask: Tensor) -> Tensor:
    """Bias float32 [B, 1, 1, S] that forbids positions where `mask` bool [B, S] is False."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)[:, None, None, :]


def causal_bias(length: int, device: torch.device) -> Tensor:
    """Bias float32 [T, T] that forbids later positions."""
    return torch.full((length, length), -torch.inf, device=device).triu(1)


class _SplitHeads(torch.autograd.Function):
    """`split_heads`, whose gradient is written into one tensor: torch would stack the parts and copy them again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        batch, length, width = x.shape
        ctx.shape = (batch, length, parts, heads, width // parts // heads)
        return tuple(part.transpose(1, 2).contiguous() for part in x.view(ctx.shape).unbind(2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        whole = grads[0].new_empty(ctx.shape)
        for part, grad in zip(whole.unbind(2), grads, strict=True):
            part.copy_(grad.transpose(1, 2))
        return whole.flatten(2), None, None


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[B, T, parts * d] -> `parts` tensors [B, H, T, Dh]; contiguous but on CUDA, whose kernels need no copy."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        found: tuple[Tensor, ...] = _SplitHeads.apply(x, parts, heads)  # type: ignore[no-untyped-call]
        return found
    batch, length, width = x.shape
    split = x.view(batch, length, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4)
    return tuple((split if x.is_cuda else split.contiguous()).unbind(0))


class _ProjectedAttention(torch.autograd.Function):
    """Heads are read where projections have them, and gradients are written there: nothing is laid out by heads."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, heads: int, bias: Tensor | None, *projections: Tensor) -> Tensor:
        given = _heads(heads, projections)
        scale = given.query.shape[-1] ** -0.5
        out, saved = kernels.attention(given, bias, scale)
        ctx.kernels, ctx.heads, ctx.bias, ctx.scale = kernels, heads, bias, scale
        ctx.save_for_backward(saved, *projections)
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, *projections = ctx.saved_tensors
        grads = [torch.empty_like(part) for part in projections]
        given, to = _heads(ctx.heads, projections), _heads(ctx.heads, grads)
        flow = grad.contiguous().view(given.query.shape)
        ctx.kernels.attention_backward(given, ctx.bias, ctx.scale, saved, flow, to=to)
        return None, None, None, *grads


def _heads(heads: int, projections: Sequence[Tensor]) -> Heads:
    """Views of what stands side by side in projections [B, T, d], [B, T, 2d] or [B, T, 3d]."""
    width = sum(part.shape[-1] for part in projections) // 3
    each = (found for part in projections for found in torch.split(part, width, dim=-1))
    return Heads(*(found.view(*found.shape[:2], heads, -1) for found in each))


def attend_projected(heads: int, bias: Tensor | None, *projections: Tensor) -> Tensor:
    """Attention [B, T, d] of heads as projections leave them: [B, T, 3d], or queries [B, T, d] and the rest [B, S, 2d].

    `bias` as in `attend`.
    """
    kernels = backend.attending(heads, *projections)
    if kernels is not None and not (bias is not None and bias.requires_grad):
        whole = [part.contiguous() for part in projections]
        out: Tensor = _ProjectedAttention.apply(kernels, heads, bias, *whole)  # type: ignore[no-untyped-call]
        return out
    width = sum(part.shape[-1] for part in projections) // 3
    query, key, value = (each for part in projections for each in split_heads(part, part.shape[-1] // width, heads))
    return attend(query, key, value, bias).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases; one fused projection to queries, keys and values."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(d_model, 3 * d_model)
        self.out = Linear(d_model, d_model)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """X [B, T, d] -> [B, T, d]; bias as in `attend`."""
        out: Tensor = self.out(attend_projected(self.heads, bias, self.qkv(x)))
        return out


class CrossAttention(nn.Module):
    """Attention of x over memory, without biases; `kv` projects memory to keys and values at once."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(d_model, d_model)
        self.kv = Linear(d_model, 2 * d_model)
        self.out = Linear(d_model, d_model)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, Dh] of memory [B, S, d]."""
        key, value = split_heads(self.kv(memory), 2, self.heads)
        return key, value

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """X [B, T, d] attends memory [B, S, d] -> [B, T, d]; bias as in `attend`."""
        out: Tensor = self.out(attend_projected(self.heads, bias, self.q(x), self.kv(memory)))
        return out

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The same with keys and values that were made once by `keys_values`."""
        (query,) = split_heads(self.q(x), 1, self.heads)
        out: Tensor = self.out(attend(query, keys, values, bias).transpose(1, 2).flatten(2))
        return out
