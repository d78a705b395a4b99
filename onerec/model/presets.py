"""The sizes of the model: one frozen configuration, four presets, each of which has a lazy form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

LAZY = "-lazy"
"""Ends the name of a lazy form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shapes of a model.

    `history_tokens` says how a history item enters the encoder: "sum" makes one token of an item (the sum of its
    code embeddings), "codes" makes one token of each code, as in the paper (section 3.1).
    `decoder` says how the decoder sees them: "encoder-decoder" encodes them, and each layer makes keys and values of
    the result; a "lazy" one (OneRec-V2, arXiv 2508.20900) has no encoder, and groups of layers share keys and values
    that are made once (see `onerec.model.lazy`).
    Raises ValueError where two sizes contradict one another.
    """

    name: str
    levels: int  # L: codes of a semantic id
    codes: int  # K: codes of a level
    session_items: int  # m
    history_items: int  # n
    history_tokens: Literal["sum", "codes"] = "sum"
    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    ffn_hidden: int  # hidden width of the encoder's dense FFN
    experts: int
    active_experts: int
    expert_hidden: int
    dropout: float = 0.1
    bf16: bool = False  # matrix products in bfloat16: on CPU it pays from d_model 256 on
    bf16_seed: bool = False  # the same while the seed trains, whose batches repeat few shapes: pays from 128 on
    beam_width: int
    embedding_dim: int  # width of the item embeddings that the tokenizer quantises
    reward_d_model: int
    reward_heads: int = 4
    decoder: Literal["encoder-decoder", "lazy"] = "encoder-decoder"
    kv_sets: int = 1  # of a lazy decoder, L_kv: groups of layers with keys and values of their own
    kv_heads: int = 1  # of a lazy decoder, G_kv: heads of these
    separate_values: bool = False  # of a lazy decoder, S_kv = 2; else keys are the values, too

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.reward_d_model % self.reward_heads:
            raise ValueError(f"preset {self.name}: heads must divide the model's width")
        if not 1 <= self.active_experts <= self.experts:
            raise ValueError(f"preset {self.name}: active_experts must be between 1 and experts")
        if self.decoder == "lazy" and self.encoder_layers:
            raise ValueError(f"preset {self.name}: a lazy decoder has no encoder_layers")
        if self.decoder == "lazy" and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ValueError(f"preset {self.name}: kv_heads must divide heads")
        if self.decoder == "lazy" and not 1 <= self.kv_sets <= self.decoder_layers:
            raise ValueError(f"preset {self.name}: kv_sets must be between 1 and decoder_layers")

    @property
    def session_tokens(self) -> int:
        """Decoder positions of a session: BOS and L codes for each item."""
        return self.session_items * (self.levels + 1)

    @property
    def kv_width(self) -> int:
        """Of the keys of one set of a lazy decoder."""
        return self.kv_heads * (self.d_model // self.heads)

    @property
    def memory_width(self) -> int:
        """Of what is kept of a history token: its state, or with a lazy decoder all sets' keys and values."""
        if self.decoder == "lazy":
            return self.kv_sets * (1 + self.separate_values) * self.kv_width
        return self.d_model


def lazy(config: ModelConfig) -> ModelConfig:
    """The same depth and, but for the tiny preset, about as many parameters with a lazy decoder.

    The encoder's layers become layers of the decoder, over which the experts are spread. Sets of keys and values as in
    OneRec-V2: one, whose keys are the values; heads of it half as many as the query's.
    """
    layers = config.encoder_layers + config.decoder_layers
    return replace(
        config,
        name=f"{config.name}{LAZY}",
        decoder="lazy",
        encoder_layers=0,
        decoder_layers=layers,
        experts=max(config.active_experts, config.experts * config.decoder_layers // layers),
        kv_heads=config.heads // 2 if config.heads % 2 == 0 else config.heads,
    )


def _tiny() -> ModelConfig:
    """For tests: a step takes milliseconds."""
    return ModelConfig(
        name="tiny",
        levels=3,
        codes=8,
        session_items=3,
        history_items=8,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        heads=2,
        ffn_hidden=64,
        experts=4,
        active_experts=2,
        expert_hidden=32,
        dropout=0.0,
        beam_width=16,
        embedding_dim=16,
        reward_d_model=16,
        reward_heads=2,
    )


def _small() -> ModelConfig:
    """For the demo: trained from nothing in a minute on two CPU cores."""
    return ModelConfig(
        name="small",
        levels=3,
        codes=128,
        session_items=5,
        history_items=50,
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        heads=4,
        ffn_hidden=256,
        experts=8,
        active_experts=2,
        expert_hidden=256,
        bf16_seed=True,
        beam_width=32,
        embedding_dim=64,
        reward_d_model=64,
    )


def _base() -> ModelConfig:
    """About 0.1B parameters with the paper's ids, session and history."""
    return ModelConfig(
        name="base",
        levels=3,
        codes=8192,
        session_items=5,
        history_items=256,
        d_model=384,
        encoder_layers=3,
        decoder_layers=3,
        heads=6,
        ffn_hidden=768,
        experts=24,
        active_experts=2,
        expert_hidden=1024,
        bf16=True,
        bf16_seed=True,
        beam_width=64,
        embedding_dim=256,
        reward_d_model=128,
    )


def _1b() -> ModelConfig:
    """The paper's model: ids, session, history, experts and beam of OneRec (sections 3, 4 and 5.1).

    The paper names no layer sizes; these are the 0.935B configuration of the OneRec technical report
    (arXiv 2506.13695, Table 1): 4 + 4 layers, width 1024, 8 heads, dense hidden 2048, expert hidden
    (2/3) * 4 * 1024 rounded up to a multiple of 128.
    """
    return ModelConfig(
        name="1b",
        levels=3,
        codes=8192,
        session_items=5,
        history_items=256,
        history_tokens="codes",
        d_model=1024,
        encoder_layers=4,
        decoder_layers=4,
        heads=8,
        ffn_hidden=2048,
        experts=24,
        active_experts=2,
        expert_hidden=2816,
        bf16=True,
        bf16_seed=True,
        beam_width=128,
        embedding_dim=512,
        reward_d_model=256,
        reward_heads=8,
    )


PRESETS: dict[str, ModelConfig] = {config.name: config for config in (_tiny(), _small(), _base(), _1b())}


def preset(name: str) -> ModelConfig:
    """Return the preset of this name, or with `-lazy` its lazy form. Raises ValueError naming those that exist."""
    found = PRESETS.get(name.removesuffix(LAZY))
    if found is None:
        raise ValueError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return lazy(found) if name.endswith(LAZY) else found
