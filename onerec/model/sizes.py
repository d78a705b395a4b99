"""How large a model is and what a request costs: parameters, the active share, floating-point operations.

Parameters are counted on modules whose weights are never allocated. Operations are those of matrix products and
attention, two for a multiplication and its addition; norms, softmaxes and the search itself are left out.

**Active** are the parameters that generating a token multiplies with: the decoder's blocks with the top-k of
their experts, and the heads. Not active are the experts that a token does not visit, the encoder and the
embedding tables (they run once a request, or are looked up). The active share is their part of ALL parameters;
by this definition preset 1b has the 13 % that the paper states for its model (section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters and floating-point operations of one configuration."""

    parameters: int  # of OneRec
    encoder: int
    decoder: int  # blocks with all experts
    experts: int  # of these, all experts
    heads: int
    tables: int  # embeddings and positions
    active: int  # see the module's docstring
    reward_parameters: int  # of the reward model, which is not part of the above
    encode_flops: int  # one request with a full history
    decode_flops: int  # one session by beam search at the preset's width
    train_flops: int  # one sample, forward and backward: full history, m items

    @property
    def active_share(self) -> float:
        """Active parameters, as a share of all."""
        return self.active / self.parameters


def sizes(config: ModelConfig) -> Sizes:
    """Measure a configuration without allocating its weights."""
    with torch.device("meta"):
        model, reward = OneRec(config), RewardModel(config)
    decoder, heads = _count(model.decoder), _count(model.heads)
    experts = sum(m.w_in.numel() + m.w_out.numel() for m in model.modules() if isinstance(m, SparseMoE))
    idle = experts // config.experts * (config.experts - config.active_experts)
    parameters, encoder = _count(model), _count(model.encoder)
    return Sizes(
        parameters=parameters,
        encoder=encoder,
        decoder=decoder,
        experts=experts,
        heads=heads,
        tables=parameters - encoder - decoder - heads,
        active=decoder - idle + heads,
        reward_parameters=_count(reward),
        encode_flops=encode_flops(config),
        decode_flops=decode_flops(config),
        train_flops=3 * (encode_flops(config) + _teacher_forced_flops(config)),
    )


def encoder_tokens(config: ModelConfig) -> int:
    """S: tokens of a full history, with the start token."""
    return 1 + config.history_items * (config.levels if config.history_tokens == "codes" else 1)


def encode_flops(config: ModelConfig) -> int:
    """The encoder over a full history, once a request; or what makes a lazy decoder's keys and values of it."""
    tokens, width = encoder_tokens(config), config.d_model
    if config.decoder == "lazy":
        return 2 * tokens * width * config.memory_width
    products = 4 * width**2 + 3 * width * config.ffn_hidden
    return config.encoder_layers * tokens * (2 * products + 4 * tokens * width)


def decode_flops(config: ModelConfig) -> int:
    """Beam search for one session: keys and values of the history once, then rows of beams.

    The first BOS is one row and every later position `beam_width` rows; the last code of the last item is not
    run, since nothing follows it.
    """
    positions = config.session_tokens - 1
    rows = 1 + (positions - 1) * config.beam_width
    logits = 1 + (config.session_items * config.levels - 1) * config.beam_width
    seen = config.beam_width * positions * (positions + 1) // 2  # pairs of a row and a position that it attends
    return _memory_flops(config) + rows * _row_flops(config) + _tail_flops(config, seen, logits)


def _teacher_forced_flops(config: ModelConfig) -> int:
    rows = config.session_tokens
    logits = config.session_items * config.levels
    return _memory_flops(config) + rows * _row_flops(config) + _tail_flops(config, rows * rows, logits)


def _memory_flops(config: ModelConfig) -> int:
    """Keys and values of the history for each decoder layer; a lazy decoder makes none."""
    if config.decoder == "lazy":
        return 0
    return config.decoder_layers * encoder_tokens(config) * 4 * config.d_model**2


def _row_flops(config: ModelConfig) -> int:
    """One decoder row through all blocks, without what it attends among decoder positions."""
    width = config.d_model
    attention = 2 * 6 * width**2 + 4 * encoder_tokens(config) * width  # qkv, out, cross q, cross out; scores and mix
    experts = 2 * width * (config.experts + config.active_experts * 3 * config.expert_hidden)
    return config.decoder_layers * (attention + experts)


def _tail_flops(config: ModelConfig, seen: int, logits: int) -> int:
    """Self-attention over `seen` pairs of decoder positions, and `logits` rows of a head."""
    return config.decoder_layers * 4 * seen * config.d_model + logits * 2 * config.d_model * config.codes


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
