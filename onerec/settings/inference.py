"""Settings of inference/: decoding, worker, sampler."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from onerec.settings.table import Device, Share, Table


class DecodingSettings(Table):
    """Beam search of worker and sampler."""

    beam_width: int = Field(32, ge=1, le=4096, description="Beams a request; 10 are measurably too few.")
    later_beam_width: int | None = Field(
        None, ge=1, description="Beams from a session's second item on; none for beam_width throughout."
    )
    level_widths: tuple[int, ...] | None = Field(
        None,
        description="Beams after each code of an item, e.g. [16, 32, 32]; none for beam_width after all. No more are "
        "kept than beam_width and later_beam_width allow.",
    )
    memory_cache_mb: int = Field(
        32,
        ge=0,
        description="Encoded histories that a worker keeps for users whose history has not changed.",
    )
    device: Device = Field("cpu", description="cpu, cuda, cuda:1 or auto: a CUDA device where there is one.")
    threads: int = Field(1, ge=1, description="That decode: they share requests, and rows where these are few.")
    kernels: Literal["auto", "amx_bf16", "avx512_bf16", "avx512_int8", "avx2_int16", "avx2", "torch"] = Field(
        "auto",
        description="What decodes on a CPU: the compiled kernels that a short calibration at start finds fastest, "
        "those named here, or torch. Where they do not fit the model or its precision, torch. avx512_int8, weights and "
        "rows of 8 bits, is faster by half and less exact: it decodes only where it is named.",
    )

    @model_validator(mode="after")
    def _beams_do_not_grow(self) -> Self:
        if self.later_beam_width is not None and self.later_beam_width > self.beam_width:
            raise ValueError("later_beam_width cannot be above beam_width")
        if self.level_widths is not None and (not self.level_widths or min(self.level_widths) < 1):
            raise ValueError("level_widths must be positive numbers")
        return self


class WorkerSettings(Table):
    """Requests to recommendations."""

    max_batch: int = Field(8, ge=1, description="Requests decoded together.")
    max_wait_ms: float = Field(2.0, ge=0, description="How long a batch waits to fill.")
    deadline_ms: int = Field(2000, ge=1, description="Where the request names none.")
    max_waiting: int = Field(
        4096, ge=1, description="Requests read and not answered; from so many on, further ones stay with the broker."
    )
    session: bool = Field(True, description="Generate the session of m items; else only the ranked next items.")
    pin_version: int | None = Field(None, description="Serve this version whatever is published: a shadow worker.")
    output_topic: str = Field("recommendations", description="A shadow worker answers elsewhere.")
    group: str = Field("worker", description="Consumer group; a shadow worker has its own.")


class Candidates(StrEnum):
    """How the sampler makes its candidates."""

    BEAM = "beam"
    SAMPLE = "sample"


class RewardWeights(Table):
    """The scalar reward: a weighted sum of standardised objectives (the paper does not disclose the merge)."""

    swt: float = Field(1.0, description="Weight of session watch time.")
    vtr: float = Field(1.0, description="Weight of view-through.")
    wtr: float = Field(0.5, description="Weight of follows.")
    ltr: float = Field(1.0, description="Weight of likes.")


class SamplerSettings(Table):
    """Live requests to preference pairs."""

    share: Share = Field(0.01, description="Of live requests, by a hash of the request id.")
    candidates: int = Field(128, ge=2, description="N sessions a request.")
    method: Candidates = Field(
        Candidates.SAMPLE, description="beam or sample; sampling spreads rewards 2.4 times wider."
    )
    temperature: float = Field(1.0, gt=0, description="Of sampling; log-probabilities are always those at 1.")
    rewards: RewardWeights = RewardWeights()


class InferenceSettings(Table):
    """Everything in inference/."""

    decoding: DecodingSettings = DecodingSettings()
    worker: WorkerSettings = WorkerSettings()
    sampler: SamplerSettings = SamplerSettings()
