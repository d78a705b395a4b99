"""Settings of the model and of trainer/."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from onerec.settings.table import Device, Share, Table


class ModelSettings(Table):
    """Which model: a preset of onerec.model.presets."""

    name: str = Field("onerec", description="Key on model-versions and trainer-journal.")
    preset: str = Field("small", description="tiny, small, base or 1b.")
    decoder: Literal["encoder-decoder", "lazy"] = Field(
        "encoder-decoder",
        description="lazy: no encoder; the decoder's layers share keys and values of the history (OneRec-V2).",
    )

    @property
    def configuration(self) -> str:
        """The name of the preset in the form chosen; versions and journals carry it as their preset."""
        return f"{self.preset}-lazy" if self.decoder == "lazy" else self.preset


class SeedSettings(Table):
    """The first training, from histories (measured on KuaiRand: annealed, positives, newest sessions first)."""

    budget_s: float = Field(300.0, gt=0, description="Wall time; ignored where samples is set.")
    samples: int | None = Field(None, ge=1, description="Exactly so many samples: reproducible across runs.")
    threads: int = Field(2, ge=1, description="Threads while the seed trains: each takes a part of every batch.")
    batch: int = Field(128, ge=1, description="Samples a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak; it decays linearly.")
    final_share: Share = Field(0.05, description="Learning rate at the end, as a share of learning_rate.")
    warmup_share: Share = Field(0.1, description="Share of the budget over which the rate rises.")
    negative_weight: Share = Field(1.0, description="Loss weight of other exposures at first; falls to 0.")
    dropout: Share = Field(0.0, description="Of OneRec while it seeds; above 0 needs threads = 1 to be reproducible.")
    half_life: float = Field(2.0, gt=0, description="Sessions of a user after which one is half as likely, at first")
    final_half_life: float = Field(0.25, gt=0, description="and at the end of the budget.")
    reward_every: int = Field(2, ge=1, description="The reward model learns in every so many-th step.")
    settle_s: float = Field(1.0, ge=0, description="Histories and catalogue are complete when neither has grown.")
    wait_s: float = Field(60.0, ge=0, description="How long to wait for histories before a seed without any.")

    @model_validator(mode="after")
    def _draws_in_order(self) -> Self:
        if self.dropout > 0 and self.threads > 1:
            raise ValueError("dropout above 0 needs threads = 1: several threads draw in no order")
        return self


class RanksSettings(Table):
    """The trainer's processes under torchrun; in a single process nothing of it counts."""

    sharding: str = Field(
        "auto",
        pattern="^(auto|ddp|fsdp)$",
        description="ddp: every rank has the whole model; fsdp: a shard. auto: fsdp for preset 1b, else ddp.",
    )
    backend: str = Field(
        "auto", pattern="^(auto|nccl|gloo)$", description="nccl on CUDA devices, gloo on CPU. auto: nccl if it can."
    )
    timeout_s: float = Field(600.0, gt=0, description="A rank that does not answer within a step for so long is lost.")


class TrainOn(StrEnum):
    """Which exposures of a session the next-token loss covers."""

    POSITIVES = "positives"
    HIGH_QUALITY = "high_quality"
    ALL = "all"


class TrainerSettings(Table):
    """The continuous trainer."""

    random_seed: int = Field(17, description="Of initial weights and dropout: a function of it and the step.")
    device: Device = Field(
        "cpu",
        description="cpu, cuda, cuda:1 or auto; part of what makes a version reproducible. Under torchrun "
        "ranks.backend decides.",
    )
    cuda_graphs: bool = Field(
        True,
        description="On a CUDA device, for models with products in bfloat16 that are not wider than 512: compute steps "
        "in a few fixed shapes, recorded as CUDA graphs. Part of what makes a version reproducible.",
    )
    compiled: bool = Field(
        True,
        description="On a CPU: compute norms, activations and attention's softmax by the compiled kernels where they "
        "are built; torch gives the same up to rounding, more slowly. Part of what makes a version reproducible.",
    )
    threads: int = Field(1, ge=1, description="torch threads; part of what makes a version reproducible.")
    learning_rate: float = Field(1e-4, gt=0, description="Constant after warmup_steps: the stream has no end.")
    reward_learning_rate: float = Field(1e-3, gt=0, description="Of the reward model.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the rate rises from 0.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    clip_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    batch: int = Field(64, ge=1, description="Sessions a step, at most.")
    batch_wait_ms: int = Field(
        200,
        ge=0,
        description="A step starts with what is there once a session has waited so long for others, or a version is "
        "due.",
    )
    train_on: TrainOn = Field(
        TrainOn.POSITIVES, description="positives, high_quality or all: what next-token loss covers."
    )
    frequency_power: Share = Field(
        0.0,
        description="Exposures of items that are shown more often than usual weigh (how many times as often) ** -this "
        "in the next-token loss: 0 for all the same, 1 for none more than the usual one. Against a loop that "
        "narrows, by learning what it showed itself; where others choose what is shown it costs hit rate.",
    )
    frequency_half_life: float = Field(
        10_000.0, gt=0, description="Exposures after which one counts half in how often an item is shown."
    )
    preference_loss: str = Field(
        "dpo",
        pattern="^(dpo|ipo|cdpo|rdpo|cpo|simpo|sdpo|ecpo|gbpo|none)$",
        description="dpo, ipo, cdpo, rdpo, cpo, simpo or sdpo; ecpo or gbpo, with the best of the sampler's group at "
        "advantage 1 and the worst at -1; none to switch it off.",
    )
    preference_weight: float = Field(
        0.1,
        ge=0,
        description="lambda: NTP is the mean per token, this multiplies the "
        "mean over the step's pairs of the loss on summed log-probabilities.",
    )
    preference_beta: float = Field(0.1, gt=0, description="beta of the preference loss (tau of IPO).")
    preference_batch: int = Field(16, ge=0, description="Pairs a step, at most.")
    pair_window: int = Field(
        100_000, ge=1, description="Pair and session ids remembered, so that each is applied once."
    )
    expert_bias_rate: float = Field(1e-3, ge=0, description="u of the loss-free balancing rule.")
    publish_interval_s: float = Field(
        0.5, gt=0, description="A version at most so often, and only after a step: see docs/performance.md, Freshness."
    )
    full_every: int = Field(50, ge=1, description="Every so many versions a full one; deltas between.")
    publish_dtype: str = Field("bfloat16", pattern="^(bfloat16|float32)$", description="Of the published weights.")
    checkpoint_interval_s: float = Field(30.0, gt=0, description="Between checkpoints; a restart repeats at most this.")
    keep_checkpoints: int = Field(3, ge=1, description="Besides the seed's, which is kept for ever.")
    seed: SeedSettings = SeedSettings()
    ranks: RanksSettings = RanksSettings()
