"""Steps of the decoder for many beams: memory projected once a request, self-attention through ancestors.

Rows are beams, request by request: row b * W + w. Keys and values of past tokens are written once, step-major, and
never moved when beams fork or end; each row carries the cache rows of its own past instead (`ancestors`), and
attention reads through them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.engine.experts import add_experts
from inference.engine.prepared import Layer, Prepared, normalise
from onerec.model.onerec import Memory

ALIGNED = 8
"""A multiple of so many elements is what matrix units of a GPU take."""
VECTOR = 16
"""Softmax over a last dimension shorter than this is not vectorised on CPU: eight times slower at 10 than at 16."""


class Decoder:
    """Decoding state of one batch of B requests with at most `max_rows` beams together."""

    packs = False
    """Rows that are not alive are decoded with the others: the reference, and what fixed shapes on a GPU want."""

    def __init__(
        self,
        weights: Prepared,
        memory: Memory,
        heads: int,
        max_rows: int,
        max_tokens: int,
        *,
        fused: bool | None = None,
    ) -> None:
        """`fused`: attend memory by torch's fused kernel, and keep what is multiplied aligned. By default on CUDA."""
        self._weights, self._heads, self._max_rows = weights, heads, max_rows
        states = memory.states.to(weights.embeddings.dtype)
        device = states.device
        self._fused = states.is_cuda if fused is None else fused
        self._requests, _, width = states.shape
        project = _split_keys_values if self._fused else _keys_values
        self._memory = [project(layer, states, heads) for layer in weights.layers]
        # [B * H, 1, S], or [B, 1, 1, S]: 0 where there is memory, -inf where there is padding
        bias = torch.zeros(memory.mask.shape, dtype=states.dtype, device=device).masked_fill_(~memory.mask, -torch.inf)
        self._memory_bias = bias[:, None, None] if self._fused else bias.repeat_interleave(heads, 0).unsqueeze(1)
        self._keys = [states.new_empty(max_tokens, max_rows, width) for _ in weights.layers]
        self._values = [states.new_empty(max_tokens, max_rows, width) for _ in weights.layers]
        self.ancestors = torch.empty(self._requests, 0, dtype=torch.int64, device=device)
        """Cache rows [R, T] of each row's past: with what is in the cache, all that changes from step to step."""
        self._value_rows = self.ancestors  # [R, H, T], set by each step
        self._row = torch.arange(max_rows, device=device)
        self._head = torch.arange(heads, device=device)
        # By tokens asked: [rows, Q, H, H, Dh], 0 but where both heads are the same; made when it is needed
        self._spread: dict[int, Tensor] = {}
        # [H, d]: row h is 1 on the coordinates of head h
        self._head_mask = torch.eye(heads, dtype=states.dtype, device=device).repeat_interleave(width // heads, 1)

    @property
    def tokens(self) -> int:
        """How many tokens each row holds."""
        return self.ancestors.shape[1]

    def advance(
        self,
        level: int,
        codes: Tensor,
        parents: Tensor | None,
        *,
        live: Tensor | None = None,  # noqa: ARG002 - all rows are decoded
        asked: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Feed P tokens to each of R rows at once; the logits float32 [R, K] of `level` after the last one.

        `codes` int64 [R, P], 0 for a BOS. `parents` int64 [R] are the rows of the call before that the rows
        continue; None where they are the same. `live` and `asked` are what the compiled decoder may leave out.
        """
        rows, fed = codes.shape
        start = self.tokens
        places = slice(start, start + fed)
        past = self.ancestors if parents is None else self.ancestors.index_select(0, parents)
        new = [self._row[:rows] + (start + step) * self._max_rows for step in range(fed)]
        self.ancestors = torch.cat([past, torch.stack(new, dim=1)], dim=1)
        self._value_rows = self.ancestors.unsqueeze(1) * self._heads + self._head.unsqueeze(1)
        embedded = functional.embedding(codes + self._weights.rows[places], self._weights.embeddings)
        x = (embedded + self._weights.positions[places]).view(rows * fed, -1)
        width = x.shape[1]
        last = len(self._weights.layers) - 1
        for index, layer in enumerate(self._weights.layers):
            if index == 0 and self._weights.first_qkv is not None:
                place = codes + torch.arange(start, start + fed, device=codes.device) * self._weights.codes
                qkv = self._weights.first_qkv.index_select(0, place.view(-1))
            else:
                qkv = torch.mm(normalise(x, self._weights.norm_floor), layer.self_qkv)
            self._remember(index, qkv.view(rows, fed, 3 * width)[:, :, width:], start)
            query = qkv.view(rows, fed, 3 * width)[:, :, :width]
            if index == last and fed > 1:  # of earlier tokens nothing but these keys and values is needed
                query, x = query[:, -1:], x.view(rows, fed, width)[:, -1]
            x = torch.addmm(x, self._attend_ancestors(index, query), layer.self_out)
            x = self._cross_attention(index, layer, x)
            x = add_experts(layer.experts, normalise(x, self._weights.norm_floor), x)
        return torch.mm(normalise(x, self._weights.norm_floor), self._weights.heads[level]).float()

    def _remember(self, index: int, kv: Tensor, start: int) -> None:
        """Write keys and values [R, P, 2d] of the new tokens to the layer's cache."""
        rows, fed, _ = kv.shape
        key, value = kv.transpose(0, 1).chunk(2, dim=-1)
        self._keys[index][start : start + fed, :rows] = key
        self._values[index][start : start + fed, :rows] = value

    def _attend_ancestors(self, index: int, query: Tensor) -> Tensor:
        """Attention of query [R, Q, d] (scaled) over the ancestors, causal among the last Q tokens: [R * Q, d].

        Scores of all heads in one product a row: the query is spread to [Q * H, d] with zeros outside each head's
        coordinates. H times the flops of one product a head, yet two to four times as fast, for matrices are
        larger. Values are not gathered: an embedding bag sums them, weighted, from where they lie.
        """
        rows, asked, width = query.shape
        heads, length = self._heads, self.tokens
        places, space = self.ancestors, length
        if self._fused:  # products with a length that is no multiple of 8 are slow on a GPU
            space = -(-length // ALIGNED) * ALIGNED
            places = functional.pad(places, (0, space - length))
        key = self._keys[index].view(-1, width).index_select(0, places.view(-1)).view(rows, space, width)
        spread = self._spread_heads(query).view(rows, asked * heads, width)
        scores = torch.bmm(spread, key.transpose(1, 2)).view(rows, asked, heads, space)[..., :length]
        for earlier in range(asked - 1):  # must not see the tokens fed after it
            scores[:, earlier, :, earlier + 1 - asked :] = -torch.inf
        weights = _softmax_short(scores).reshape(rows * asked * heads, length)
        places = self._value_rows.unsqueeze(1).expand(rows, asked, heads, length).reshape(-1, length)
        table = self._values[index].view(-1, width // heads)
        mixed = functional.embedding_bag(places, table, per_sample_weights=weights, mode="sum")
        return mixed.view(rows * asked, width)

    def _spread_heads(self, query: Tensor) -> Tensor:
        """Query [R, Q, d] -> [R, Q, H, d] with zeros outside each head's coordinates."""
        if not self._fused:
            return query.unsqueeze(2) * self._head_mask
        rows, asked, width = query.shape
        heads = self._heads
        if asked not in self._spread:
            self._spread[asked] = query.new_zeros(self._max_rows, asked, heads, heads, width // heads)
        spread = self._spread[asked][:rows]
        spread.diagonal(dim1=2, dim2=3).copy_(query.view(rows, asked, heads, -1).transpose(2, 3))
        return spread.view(rows, asked, heads, width)

    def _cross_attention(self, index: int, layer: Layer, x: Tensor) -> Tensor:
        """X [B * W * P, d] plus attention over memory, beams folded into the query axis: [B * W * P, d]."""
        width, heads = x.shape[1], self._heads
        key, value = self._memory[index]
        query = torch.mm(normalise(x, self._weights.norm_floor), layer.cross_q)
        query = query.view(self._requests, -1, heads, width // heads).transpose(1, 2)
        if self._fused:
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=self._memory_bias, scale=1.0)
            return torch.addmm(x, seen.transpose(1, 2).reshape(-1, width), layer.cross_out)
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


def _split_keys_values(layer: Layer, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """The same as torch's fused attention takes them: both [B, H, S, Dh]."""
    batch, length, width = states.shape
    kv = torch.mm(states.reshape(batch * length, width), layer.cross_kv)
    key, value = kv.view(batch, length, 2, heads, width // heads).permute(2, 0, 3, 1, 4).contiguous()
    return key, value


def _softmax_short(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of scores [..., T] in float32, fast for short T as well."""
    length = scores.shape[-1]
    padded = scores
    if length < VECTOR and scores.device.type == "cpu":
        padded = functional.pad(scores, (0, VECTOR - length), value=-torch.inf)
    return torch.softmax(padded, dim=-1, dtype=torch.float32).to(scores.dtype)[..., :length]
