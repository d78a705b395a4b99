"""Pre-norm blocks of the encoder and the decoder.

The residual stream keeps its dtype (float32 in training); each norm hands on the dtype of matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onerec.model import branches
from onerec.model.attention import CrossAttention, SelfAttention
from onerec.model.dropout import Dropout
from onerec.model.lazy import SharedAttention
from onerec.model.moe import SparseMoE
from onerec.model.norm import ResidualNorm, RMSNorm
from onerec.model.presets import ModelConfig
from onerec.model.swiglu import FeedForward


class EncoderBlock(nn.Module):
    """Self-attention and dense FFN."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_norm = ResidualNorm(config.d_model)
        self.self_attention = SelfAttention(config.d_model, config.heads)
        self.ffn_norm = ResidualNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_hidden)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, added: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The stream [B, S, d] and what the block before adds to it -> the same of this one; products in `dtype`."""
        x, attended = branches.self_attention(self.self_norm, self.self_attention, x, added, bias, dtype)
        x, fed = branches.feed_forward(self.ffn_norm, self.ffn, x, self.dropout(attended), dtype)
        return x, self.dropout(fed)


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention and sparse mixture of experts; a lazy one attends memory first."""

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        """`layer` counts from 0."""
        super().__init__()
        self.memory_first = config.decoder == "lazy"
        self.self_norm = ResidualNorm(config.d_model)
        self.self_attention = SelfAttention(config.d_model, config.heads)
        self.cross_norm = ResidualNorm(config.d_model)
        self.cross_attention: CrossAttention | SharedAttention = (
            SharedAttention(config, layer) if self.memory_first else CrossAttention(config.d_model, config.heads)
        )
        self.moe_norm = RMSNorm(config.d_model)
        self.moe = SparseMoE(config.d_model, config.expert_hidden, config.experts, config.active_experts)
        self.dropout = Dropout(config.dropout)

    def attend(self, x: Tensor, causal: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        """Both attentions: x [B, T, d], memory [B, S, ...] in the dtype of matrix products -> [B, T, d]."""
        added: Tensor | None = None
        if self.memory_first:
            x, added = self._attend_memory(x, added, memory, padding)
        x, attended = branches.self_attention(self.self_norm, self.self_attention, x, added, causal, memory.dtype)
        added = self.dropout(attended)
        if not self.memory_first:
            x, added = self._attend_memory(x, added, memory, padding)
        return x + added

    def _attend_memory(
        self, x: Tensor, added: Tensor | None, memory: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The stream x + `added`, and what memory adds to it."""
        if isinstance(self.cross_attention, SharedAttention):
            x, normed = self.cross_norm(x, added, memory.dtype)
            seen = self.cross_attention(normed, memory, padding)
        else:
            x, seen = branches.cross_attention(self.cross_norm, self.cross_attention, x, added, memory, padding)
        return x, self.dropout(seen)

    def mix(self, rows: Tensor, dtype: torch.dtype, counted: Tensor | None = None) -> Tensor:
        """The experts: rows [R, d] -> [R, d]; `counted` as in `SparseMoE`."""
        mixed = self.moe(self.moe_norm(rows, dtype), counted)
        out: Tensor = rows + self.dropout(mixed.to(rows.dtype))
        return out
