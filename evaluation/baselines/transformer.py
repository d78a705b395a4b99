"""The one trunk of all sequence models: embedded exposures, transformer blocks, states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluation.baselines.sequences import SequenceBatch
from onerec.model.attention import SelfAttention, causal_bias, padding_bias


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSettings:
    """Sizes that the models share."""

    length: int = 50  # n
    width: int = 64
    layers: int = 2
    heads: int = 2
    hidden: int = 256
    dropout: float = 0.2
    input_norm: bool = False
    """Norm what is embedded: embeddings begin at .02, which is little beside what the blocks add to them."""


class Block(nn.Module):
    """Pre-norm self-attention and GELU feed-forward."""

    def __init__(self, settings: TrunkSettings) -> None:
        super().__init__()
        width = settings.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, settings.heads)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, width)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, n, d] -> [B, n, d]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), bias))
        out: Tensor = x + self.dropout(self.ffn(x))
        return out


class Trunk(nn.Module):
    """Adds positions to inputs and runs the blocks. Positions count from the newest exposure backwards."""

    def __init__(self, settings: TrunkSettings, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.position = nn.Embedding(settings.length + 1, settings.width)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.input_norm = nn.LayerNorm(settings.width) if settings.input_norm else nn.Identity()
        self.norm = nn.LayerNorm(settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Inputs [B, n, d] with mask bool [B, n] -> states [B, n, d]; padding lies on the right."""
        length = x.shape[1]
        age = (mask.sum(1, keepdim=True) - 1 - torch.arange(length, device=x.device)).clamp(min=0)
        x = self.dropout(self.input_norm(x + self.position(age)))
        # Causal: what lies to the right is padding, or the future.
        seen = mask | ~mask.any(1, keepdim=True)
        bias = causal_bias(length, x.device) if self.causal else padding_bias(seen)
        for block in self.blocks:
            x = block(x, bias)
        out: Tensor = self.norm(x)
        return out


class ExposureEmbedding(nn.Module):
    """Item and what the user did with it; `extra` tokens after the items, such as a mask."""

    def __init__(self, items: int, width: int, extra: int = 0) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1 + extra, width, padding_idx=0)
        self.mark = nn.Embedding(3, width)
        nn.init.normal_(self.item.weight[1:], std=0.02)
        nn.init.normal_(self.mark.weight, std=0.02)
        self.items = items

    def forward(self, tokens: Tensor, marks: Tensor) -> Tensor:
        """[B, n] and [B, n] -> [B, n, d]."""
        out: Tensor = self.item(tokens) + self.mark(marks)
        return out

    def catalogue(self) -> Tensor:
        """The embeddings [N, d] of all items."""
        return self.item.weight[1 : self.items + 1]


def newest(states: Tensor, batch: SequenceBatch) -> Tensor:
    """The state [B, d] at each user's newest exposure, of states [B, n, d]; the first where there is none."""
    at = (batch.lengths - 1).clamp(min=0)
    return states[torch.arange(len(at), device=at.device), at]
