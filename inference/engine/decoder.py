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
        self._requests, width = len(states), weights.embeddings.shape[1]
        self._memory = _memories(weights, states, width // heads, split=self._fused)
        # [B * G, 1, S], or [B, 1, 1, S]: 0 where there is memory, -inf where there is padding
        bias = torch.zeros(memory.mask.shape, dtype=states.dtype, device=device).masked_fill_(~memory.mask, -torch.inf)
        self._memory_bias = (
            bias[:, None, None] if self._fused else bias.repeat_interleave(weights.kv_heads, 0).unsqueeze(1)
        )
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
            if self._weights.memory_first:
                x = self._cross_attention(index, layer, x)
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
            if not self._weights.memory_first:
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
        kv_heads = self._weights.kv_heads  # those that share one are neighbours
        if self._fused:
            grouped = query.reshape(self._requests, kv_heads, -1, width // heads)
            seen = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=self._memory_bias, scale=1.0)
            seen = seen.reshape(query.shape).transpose(1, 2)
            return torch.addmm(x, seen.reshape(-1, width), layer.cross_out)
        query = query.reshape(self._requests * kv_heads, -1, width // heads)
        scores = torch.baddbmm(self._memory_bias, query, key)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
        mixed = torch.bmm(weights, value).view(self._requests, heads, -1, width // heads).transpose(1, 2)
        return torch.addmm(x, mixed.reshape(-1, width), layer.cross_out)


def _memories(weights: Prepared, states: Tensor, head_width: int, *, split: bool) -> list[tuple[Tensor, Tensor]]:
    """By layer the keys [B * G, Dh, S] and values [B * G, S, Dh] of memory states [B, S, ...].

    With `split` as torch's fused attention takes them, both [B, G, S, Dh]. Layers that share them share the tensors.
    """
    lay_out, made = (_split_keys_values if split else _keys_values), dict[tuple[int, int], tuple[Tensor, Tensor]]()
    shape, found = (weights.kv_heads, head_width), []
    for layer in weights.layers:
        if layer.cross_kv is not None:
            found.append(lay_out(states @ layer.cross_kv, layer.kv_columns, shape))
            continue
        if layer.kv_columns not in made:
            made[layer.kv_columns] = lay_out(states, layer.kv_columns, shape)
        found.append(made[layer.kv_columns])
    return found


def _keys_values(kv: Tensor, columns: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of kv [B, S, ...] the keys [B * G, Dh, S] and values [B * G, S, Dh] that begin at `columns`."""
    key, value = _heads(kv, columns, shape)
    batch, length, heads, width = key.shape
    keys = key.permute(0, 2, 3, 1).reshape(batch * heads, width, length)
    return keys, value.transpose(1, 2).reshape(batch * heads, length, width)


def _split_keys_values(kv: Tensor, columns: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The same as torch's fused attention takes them: both [B, G, S, Dh]."""
    key, value = (part.transpose(1, 2).contiguous() for part in _heads(kv, columns, shape))
    return key, value


def _heads(kv: Tensor, columns: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views [B, S, G, Dh]."""
    width = shape[0] * shape[1]
    key, value = (kv[..., at : at + width].view(*kv.shape[:2], *shape) for at in columns)
    return key, value


def _softmax_short(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of scores [..., T] in float32, fast for short T as well."""
    length = scores.shape[-1]
    padded = scores
    if length < VECTOR and scores.device.type == "cpu":
        padded = functional.pad(scores, (0, VECTOR - length), value=-torch.inf)
    return torch.softmax(padded, dim=-1, dtype=torch.float32).to(scores.dtype)[..., :length]
