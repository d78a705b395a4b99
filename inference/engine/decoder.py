"""Steps of the decoder for many beams: memory projected once a request, self-attention through ancestors.

Rows are beams, request by request: row b * W + w. Keys and values of past tokens are written once, step-major, and
never moved when beams fork or end; each row carries the cache rows of its own past instead (`_ancestors`), which
are gathered inside attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.engine.experts import add_experts
from inference.engine.prepared import Layer, Prepared, normalise
from onerec.model.onerec import Memory

VECTOR = 16
"""Softmax over a last dimension shorter than this is not vectorised on CPU: eight times slower at 10 than at 16."""


class Decoder:
    """Decoding state of one batch of B requests with at most `max_rows` beams together."""

    def __init__(self, weights: Prepared, memory: Memory, heads: int, max_rows: int, max_tokens: int) -> None:
        self._weights, self._heads, self._max_rows = weights, heads, max_rows
        states = memory.states.to(weights.bos.dtype)
        self._requests, _, width = states.shape
        self._memory = [_keys_values(layer, states, heads) for layer in weights.layers]
        # [B * H, 1, S]: 0 where there is memory, -inf where there is padding
        bias = torch.zeros(memory.mask.shape, dtype=states.dtype, device=states.device)
        self._memory_bias = bias.masked_fill_(~memory.mask, -torch.inf).repeat_interleave(heads, 0).unsqueeze(1)
        self._cache = [states.new_empty(max_tokens, max_rows, 2 * width) for _ in weights.layers]
        self._ancestors = torch.empty(self._requests, 0, dtype=torch.int64, device=states.device)  # [R, T]
        self._row = torch.arange(max_rows, device=states.device)
        # [H, d]: row h is 1 on the coordinates of head h
        self._head_mask = torch.eye(heads, dtype=states.dtype, device=states.device).repeat_interleave(
            width // heads, 1
        )

    @property
    def tokens(self) -> int:
        """How many tokens each row holds."""
        return self._ancestors.shape[1]

    def advance(self, inputs: Tensor, parents: Tensor | None) -> Tensor:
        """Feed P tokens to each of R rows at once; the last token's hidden state [R, d], normalised for the heads.

        `inputs` [R, P, d] are embeddings with positions. `parents` int64 [R] are the rows of the call before that
        the rows continue; None where they are the same.
        """
        rows, fed, width = inputs.shape
        start = self.tokens
        past = self._ancestors if parents is None else self._ancestors.index_select(0, parents)
        new = [self._row[:rows] + (start + step) * self._max_rows for step in range(fed)]
        self._ancestors = torch.cat([past, torch.stack(new, dim=1)], dim=1)
        x = inputs
        last = len(self._weights.layers) - 1
        for index, layer in enumerate(self._weights.layers):
            flat = self._self_attention(index, layer, x, start, only_last=index == last)
            flat = self._cross_attention(index, layer, flat)
            flat = add_experts(layer.experts, normalise(flat, self._weights.norm_floor), flat)
            x = flat.view(rows, -1, width)
        return normalise(x[:, -1], self._weights.norm_floor)

    def _self_attention(self, index: int, layer: Layer, x: Tensor, start: int, *, only_last: bool) -> Tensor:
        """X [R, P, d] plus its attention over each row's own past: [R * P, d], or [R, d] of the last token.

        The last layer needs the earlier of two tokens for its keys and values only.
        """
        rows, fed, width = x.shape
        normal = normalise(x.reshape(rows * fed, width), self._weights.norm_floor)
        if only_last and fed > 1:
            kv = torch.mm(normal, layer.self_qkv[:, width:])
            query = torch.mm(normal.view(rows, fed, width)[:, -1], layer.self_qkv[:, :width])
            residual = x[:, -1]
        else:
            query, kv = torch.split(torch.mm(normal, layer.self_qkv), [width, 2 * width], dim=1)
            residual = x.reshape(rows * fed, width)
        cache = self._cache[index]
        cache[start : start + fed, :rows] = kv.view(rows, fed, 2 * width).transpose(0, 1)
        mixed = self._attend_ancestors(query.reshape(rows, -1, width), cache)
        return torch.addmm(residual, mixed, layer.self_out)

    def _attend_ancestors(self, query: Tensor, cache: Tensor) -> Tensor:
        """Attention of query [R, Q, d] (scaled) over the ancestors' keys and values, causal among the Q: [R * Q, d].

        All heads in one product a row: the query is spread to [Q * H, d] with zeros outside each head's
        coordinates. H times the flops of one product a head, yet two to four times as fast: matrices are larger.
        """
        rows, fed, width = query.shape
        kv = cache.view(-1, 2 * width).index_select(0, self._ancestors.view(-1)).view(rows, -1, 2 * width)
        spread = (query.unsqueeze(2) * self._head_mask).view(rows, fed * self._heads, width)
        scores = torch.bmm(spread, kv[:, :, :width].transpose(1, 2))  # [R, Q * H, T]
        for earlier in range(fed - 1):  # must not see the tokens fed after it
            ahead = fed - 1 - earlier
            scores.view(rows, fed, self._heads, -1)[:, earlier, :, -ahead:] = -torch.inf
        weights = _softmax_short(scores)
        mixed = torch.bmm(weights, kv[:, :, width:])  # [R, Q * H, d]
        own = mixed.view(rows * fed, self._heads, self._heads, width // self._heads).diagonal(dim1=1, dim2=2)
        return own.transpose(1, 2).reshape(rows * fed, width)

    def _cross_attention(self, index: int, layer: Layer, x: Tensor) -> Tensor:
        """X [B * W * P, d] plus attention over memory, beams folded into the query axis: [B * W * P, d]."""
        width, heads = x.shape[1], self._heads
        key, value = self._memory[index]  # [B * H, Dh, S], [B * H, S, Dh]
        query = torch.mm(normalise(x, self._weights.norm_floor), layer.cross_q)
        query = query.view(self._requests, -1, heads, width // heads).transpose(1, 2)
        query = query.reshape(self._requests * heads, -1, width // heads)
        scores = torch.baddbmm(self._memory_bias, query, key)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
        mixed = torch.bmm(weights, value).view(self._requests, heads, -1, width // heads).transpose(1, 2)
        return torch.addmm(x, mixed.reshape(-1, width), layer.cross_out)


def _keys_values(layer: Layer, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Keys [B * H, Dh, S] and values [B * H, S, Dh] of memory states [B, S, d]."""
    batch, length, width = states.shape
    kv = torch.mm(states.reshape(batch * length, width), layer.cross_kv)
    kv = kv.view(batch, length, 2, heads, width // heads)
    key = kv[:, :, 0].permute(0, 2, 3, 1).reshape(batch * heads, width // heads, length)
    return key, kv[:, :, 1].transpose(1, 2).reshape(batch * heads, length, width // heads)


def _softmax_short(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of scores [..., T] in float32, fast for short T as well."""
    length = scores.shape[-1]
    padded = scores
    if length < VECTOR and scores.device.type == "cpu":
        padded = functional.pad(scores, (0, VECTOR - length), value=-torch.inf)
    return torch.softmax(padded, dim=-1, dtype=torch.float32).to(scores.dtype)[..., :length]
