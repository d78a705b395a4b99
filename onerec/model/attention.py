"""Multi-head attention, with the kernel chosen in one place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention: query [B, H, T, Dh], key and value [B, H, S, Dh] -> [B, H, T, Dh].

    `bias` is added to the scores, broadcast to [B, H, T, S]; -inf forbids.

    On CPU with gradients the three steps are spelled out: the backward of the fused CPU kernel is so slow that a
    training step takes 1.5 times as long with it. Everywhere else the fused kernel is at least as fast.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled():
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        if bias is not None:
            scores = scores + bias
        return torch.matmul(torch.softmax(scores, dim=-1), value)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=None if bias is None else bias.to(query.dtype)
    )


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias [B, 1, 1, S] that forbids positions where `mask` bool [B, S] is False."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)[:, None, None, :]


def causal_bias(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Bias [T, T] that forbids later positions."""
    return torch.full((length, length), -torch.inf, dtype=dtype, device=device).triu(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases; one fused projection to queries, keys and values."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """X [B, T, d] -> [B, T, d]; bias as in `attend`."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(qkv[0], qkv[1], qkv[2], bias)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class CrossAttention(nn.Module):
    """Attention of x over memory, without biases; `kv` projects memory to keys and values at once."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.kv = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, S, Dh] of memory [B, S, d]."""
        batch, length, width = memory.shape
        kv = self.kv(memory).view(batch, length, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return kv[0], kv[1]

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """X [B, T, d] attends memory [B, S, d] -> [B, T, d]; bias as in `attend`."""
        return self.attend(x, *self.keys_values(memory), bias)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The same with keys and values that were made once by `keys_values`."""
        batch, length, width = x.shape
        query = self.q(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        mixed = attend(query, keys, values, bias)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out
