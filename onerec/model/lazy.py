"""What a lazy decoder has instead of an encoder (OneRec-V2, arXiv 2508.20900): keys and values that layers share.

History tokens become L_kv sets of keys and values of G_kv heads, by one product and a norm each; layer l of N attends
set floor(l * L_kv / N) and projects nothing of it. Query heads share key heads in groups. What is cached of a history
does not grow with the layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onerec.model.attention import attend, split_heads
from onerec.model.norm import RMSNorm
from onerec.model.precision import Linear, widen
from onerec.model.presets import ModelConfig


class Context(nn.Module):
    """History tokens to memory: the sets one after the other, keys before values where both are kept."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = Linear(config.d_model, config.memory_width)
        parts = config.memory_width // config.kv_width
        self.norms = nn.ModuleList(RMSNorm(config.kv_width) for _ in range(parts))

    def forward(self, x: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG002 - tokens meet no other
        """Tokens x [B, S, d] -> [B, S, d_context] in `dtype`."""
        parts = self.project(x.to(dtype)).chunk(len(self.norms), dim=-1)
        return torch.cat([norm(widen(part), dtype) for norm, part in zip(self.norms, parts, strict=True)], dim=-1)


class SharedAttention(nn.Module):
    """Attention of x over keys and values that stand in memory, without biases."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.columns = columns(config, layer)
        self.width = config.kv_width
        self.q = Linear(config.d_model, config.d_model)
        self.out = Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """X [B, T, d] attends memory [B, S, d_context] -> [B, T, d]; bias [B, 1, 1, S] as in `attend`."""
        parts = (memory[..., at : at + self.width] for at in self.columns)
        key, value = (split_heads(part, 1, self.kv_heads)[0] for part in parts)
        (query,) = split_heads(self.q(x), 1, self.heads)
        batch, _, _, width = query.shape
        grouped = query.reshape(batch, self.kv_heads, -1, width)  # heads that share a key head are neighbours
        seen = attend(grouped, key, value, bias).reshape(query.shape)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


def columns(config: ModelConfig, layer: int) -> tuple[int, int]:
    """At which columns of memory a layer's keys and values begin; the same where keys are values."""
    parts = 1 + config.separate_values
    first = layer * config.kv_sets // config.decoder_layers * parts * config.kv_width
    return first, first + (parts - 1) * config.kv_width
