"""OneRec: an encoder of the user's history and a decoder of a session (paper, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from onerec.model.attention import CrossAttention, SelfAttention, causal_bias, padding_bias
from onerec.model.batches import LABEL_VALUES, HistoryBatch
from onerec.model.moe import SparseMoE
from onerec.model.presets import ModelConfig

INITIAL_STD = 0.02


class Memory(NamedTuple):
    """What the decoder attends: a start token and the history."""

    states: Tensor  # [B, S, d]
    mask: Tensor  # bool [B, S], always True at index 0


class FeedForward(nn.Module):
    """Dense SwiGLU."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(d_model, 2 * hidden, bias=False)
        self.w_out = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., d]."""
        gate, value = self.w_in(x).chunk(2, dim=-1)
        out: Tensor = self.w_out(functional.silu(gate) * value)
        return out


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and dense FFN."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_norm = nn.RMSNorm(config.d_model)
        self.self_attention = SelfAttention(config.d_model, config.heads)
        self.ffn_norm = nn.RMSNorm(config.d_model)
        self.ffn = FeedForward(config.d_model, config.ffn_hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, S, d] -> [B, S, d]."""
        x = x + self.dropout(self.self_attention(self.self_norm(x), bias))
        out: Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return out


class DecoderBlock(nn.Module):
    """Pre-norm causal self-attention, cross-attention and sparse mixture of experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_norm = nn.RMSNorm(config.d_model)
        self.self_attention = SelfAttention(config.d_model, config.heads)
        self.cross_norm = nn.RMSNorm(config.d_model)
        self.cross_attention = CrossAttention(config.d_model, config.heads)
        self.moe_norm = nn.RMSNorm(config.d_model)
        self.moe = SparseMoE(config.d_model, config.expert_hidden, config.experts, config.active_experts)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, causal: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """X [B, T, d], memory [B, S, d] -> [B, T, d]."""
        x = x + self.dropout(self.self_attention(self.self_norm(x), causal))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory, padding))
        mixed = self.moe(self.moe_norm(x).flatten(0, 1)).view_as(x)
        out: Tensor = x + self.dropout(mixed)
        return out


class Encoder(nn.Module):
    """Blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.norm = nn.RMSNorm(config.d_model)


class Decoder(nn.Module):
    """Blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.norm = nn.RMSNorm(config.d_model)


class OneRec(nn.Module):
    """Encoder-decoder over semantic ids. Decoder input is [BOS s1 .. sL] for each item of the session."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.code_embedding = nn.Embedding(config.levels * config.codes, width)
        self.label_embedding = nn.Embedding(LABEL_VALUES, width)
        self.history_position = nn.Parameter(torch.empty(config.history_items, width))  # 0 is the newest item
        self.start = nn.Parameter(torch.empty(width))
        self.bos = nn.Parameter(torch.empty(width))
        self.decoder_position = nn.Parameter(torch.empty(config.session_tokens, width))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.heads = nn.ModuleList(nn.Linear(width, config.codes, bias=False) for _ in range(config.levels))
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights; outputs of residual branches are scaled down with depth."""
        config = self.config
        depth = 2 * config.encoder_layers + 3 * config.decoder_layers
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.ones_(parameter)
            elif name.endswith(("out.weight", "w_out")):
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 / depth**0.5)
            elif parameter.dim() == 1 or "embedding" in name or "position" in name:
                nn.init.normal_(parameter, std=INITIAL_STD)
            else:
                nn.init.normal_(parameter, std=config.d_model**-0.5)

    def code_rows(self, codes: Tensor) -> Tensor:
        """Rows of `code_embedding` for codes int64 [..., L]: level l starts at row l * K."""
        return codes + torch.arange(self.config.levels, device=codes.device) * self.config.codes

    def encoder_inputs(self, history: HistoryBatch) -> tuple[Tensor, Tensor]:
        """Start token and history tokens [B, S, d] with their mask bool [B, S]."""
        batch, items, levels = history.codes.shape
        lengths = history.mask.sum(1, keepdim=True)
        age = (lengths - 1 - torch.arange(items, device=lengths.device)).clamp(0, self.config.history_items - 1)
        extra = self.label_embedding(history.labels) + self.history_position[age]  # [B, n, d]
        embedded = self.code_embedding(self.code_rows(history.codes))  # [B, n, L, d]
        mask = history.mask
        if self.config.history_tokens == "sum":
            tokens = embedded.sum(2) + extra
        else:
            tokens = (embedded + extra.unsqueeze(2)).flatten(1, 2)
            mask = mask.repeat_interleave(levels, dim=1)
        states = torch.cat([self.start.expand(batch, 1, -1), tokens], dim=1)
        return self.dropout(states), functional.pad(mask, (1, 0), value=True)

    def encode(self, history: HistoryBatch) -> Memory:
        """Encode histories; padding does not change the states of what is there."""
        x, mask = self.encoder_inputs(history)
        bias = padding_bias(mask, x.dtype)
        for block in self.encoder.blocks:
            x = block(x, bias)
        return Memory(self.encoder.norm(x), mask)

    def decoder_inputs(self, codes: Tensor) -> Tensor:
        """Teacher-forced inputs [B, m * (L + 1), d] of sessions `codes` int64 [B, m, L]."""
        batch, items, _ = codes.shape
        embedded = self.code_embedding(self.code_rows(codes))  # [B, m, L, d]
        tokens = torch.cat([self.bos.expand(batch, items, 1, -1), embedded], dim=2).flatten(1, 2)
        return tokens + self.decoder_position[: tokens.shape[1]]

    def decode(self, x: Tensor, memory: Memory) -> Tensor:
        """Hidden states [B, T, d] of decoder inputs x [B, T, d]."""
        x = self.dropout(x)
        causal = causal_bias(x.shape[1], x.device, x.dtype)
        padding = padding_bias(memory.mask, x.dtype)
        for block in self.decoder.blocks:
            x = block(x, causal, memory.states, padding)
        hidden: Tensor = self.decoder.norm(x)
        return hidden

    def logits(self, level: int, hidden: Tensor) -> Tensor:
        """Scores [..., K] of the codes of a level for hidden states [..., d] at the position before it."""
        scores: Tensor = self.heads[level](hidden)
        return scores

    def update_expert_bias(self, rate: float) -> None:
        """Balance the experts of every decoder block by one step (see `SparseMoE.update_bias`)."""
        for module in self.modules():
            if isinstance(module, SparseMoE):
                module.update_bias(rate)
