"""OneRec: an encoder of the user's history and a decoder of a session (paper, section 3.2), or a lazy decoder alone."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from onerec.model.attention import causal_bias, padding_bias
from onerec.model.batches import LABEL_VALUES, HistoryBatch
from onerec.model.blocks import DecoderBlock, EncoderBlock
from onerec.model.dropout import Dropout
from onerec.model.lazy import Context
from onerec.model.moe import SparseMoE
from onerec.model.norm import ResidualNorm, RMSNorm
from onerec.model.precision import Linear, product_dtype
from onerec.model.presets import ModelConfig

INITIAL_STD = 0.02


class Memory(NamedTuple):
    """What the decoder attends: a start token and the history."""

    states: Tensor  # [B, S, d]; of a lazy decoder keys and values [B, S, d_context]
    mask: Tensor  # bool [B, S], always True at index 0


class Encoder(nn.Module):
    """Blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))
        self.norm = ResidualNorm(config.d_model)

    def stack(self) -> list[EncoderBlock]:
        """The blocks with their type."""
        return cast(list[EncoderBlock], list(self.blocks))

    def forward(self, x: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens x [B, S, d] with their mask bool [B, S] -> states [B, S, d] in `dtype`."""
        bias = padding_bias(mask)
        added: Tensor | None = None
        for block in self.stack():
            x, added = block(x, added, bias, dtype)
        states: Tensor = self.norm(x, added, dtype)[1]
        return states


class Decoder(nn.Module):
    """Blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.decoder_layers))
        self.norm = RMSNorm(config.d_model)

    def stack(self) -> list[DecoderBlock]:
        """The blocks with their type."""
        return cast(list[DecoderBlock], list(self.blocks))


class OneRec(nn.Module):
    """Semantic ids in, semantic ids out. Decoder input is [BOS s1 .. sL] for each item of the session.

    `bf16` says whether matrix products run in bfloat16 (the preset's choice at first); parameters and the
    residual stream stay float32, no autocast is needed. On CPU each new shape of a product is compiled first,
    which takes 2 ms: it pays where shapes repeat.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.bf16 = config.bf16
        width = config.d_model
        self.code_embedding = nn.Embedding(config.levels * config.codes, width)
        self.label_embedding = nn.Embedding(LABEL_VALUES, width)
        self.history_position = nn.Parameter(torch.empty(config.history_items, width))  # 0 is the newest item
        self.start = nn.Parameter(torch.empty(width))
        self.bos = nn.Parameter(torch.empty(width))
        self.decoder_position = nn.Parameter(torch.empty(config.session_tokens, width))
        self.encoder = Context(config) if config.decoder == "lazy" else Encoder(config)
        self.decoder = Decoder(config)
        self.heads = nn.ModuleList(Linear(width, config.codes) for _ in range(config.levels))
        self.dropout = Dropout(config.dropout)
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
        extra = self.label_embedding(history.labels) + functional.embedding(age, self.history_position)  # [B, n, d]
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
        return Memory(self.encoder(x, mask, product_dtype(self.bf16, x)), mask)

    def decoder_inputs(self, codes: Tensor) -> Tensor:
        """Teacher-forced inputs [B, m * (L + 1), d] of sessions `codes` int64 [B, m, L]."""
        batch, items, _ = codes.shape
        embedded = self.code_embedding(self.code_rows(codes))  # [B, m, L, d]
        tokens = torch.cat([self.bos.expand(batch, items, 1, -1), embedded], dim=2).flatten(1, 2)
        return tokens + self.decoder_position[: tokens.shape[1]]

    def decode(self, x: Tensor, memory: Memory) -> Tensor:
        """Hidden states [B, T, d] of decoder inputs x [B, T, d]."""
        return self.decode_rows(x, memory, x.new_ones(x.shape[:2], dtype=torch.bool)).view_as(x)

    def decode_rows(self, x: Tensor, memory: Memory, wanted: Tensor) -> Tensor:
        """Hidden states [R, d] of the R positions where `wanted` bool [B, T] is True, row by row.

        Experts, which are most of the work, run only where a wanted position depends on the result; so padding
        and unwanted positions do not enter the experts' load either.
        """
        x = self.dropout(x)
        causal = causal_bias(x.shape[1], x.device)
        padding = padding_bias(memory.mask)
        dtype = memory.states.dtype
        needed = wanted.flip(1).cummax(1).values.flip(1)  # a wanted position follows, or is it
        rows = needed.flatten().nonzero().squeeze(1)
        *blocks, last = self.decoder.stack()
        for block in blocks:
            x = block.attend(x, causal, memory.states, padding)
            flat = x.flatten(0, 1)
            x = flat.index_copy(0, rows, block.mix(flat.index_select(0, rows), dtype)).view_as(x)
        x = last.attend(x, causal, memory.states, padding)
        final = x.flatten(0, 1).index_select(0, wanted.flatten().nonzero().squeeze(1))
        hidden: Tensor = self.decoder.norm(last.mix(final, dtype))
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
