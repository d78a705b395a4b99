"""What is not measured on the two cores and is assumed: each with why, printed with every plan."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from onerec.model.presets import ModelConfig
from onerec.model.sizes import sizes


def assumed(value: float, why: str) -> float:
    """A field with its reason."""
    made: float = field(default=value, metadata={"why": why})
    return made


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Change any of them by `--assume NAME=VALUE`."""

    exposures: float = assumed(5.0, "impressions of a request: the session of five items, all shown")
    actions: float = assumed(1.02, "actions of an impression: 20,448 of 20,000 in docs/demo-report.json")
    learned: float = assumed(1.0, "share of the sessions that is trained on")
    headroom: float = assumed(0.5, "load as a share of capacity: latencies are measured at half load")
    replicas: float = assumed(3.0, "of every partition, one of which may be lost")
    compression: float = assumed(0.6, "bytes left by lz4; ids and times of a batch resemble one another")
    broker_mb: float = assumed(100.0, "MB/s that one broker writes, its share of the replicas included: one NVMe disk")
    partition_mb: float = assumed(5.0, "MB/s of one partition, so that a consumer that was down catches up")
    broker_partitions: float = assumed(4000.0, "replicas of partitions that one broker holds")
    ranks_efficiency: float = assumed(0.85, "of linear, by gradient exchange between a trainer's ranks")
    gpu_tflops: float = assumed(989.0, "dense bfloat16 peak of an H100 SXM")
    gpu_serving_mfu: float = assumed(
        0.175,
        "measured: decode_1b_beam128_batch32 of docs/gpu-report.json; OneRec's report has .288 (arXiv 2506.13695)",
    )
    gpu_training_mfu: float = assumed(
        0.187, "measured: train_1b_batch128 of docs/gpu-report.json; the same report has .237"
    )

    def why(self) -> dict[str, tuple[float, str]]:
        """Value and reason of each."""
        return {one.name: (getattr(self, one.name), one.metadata["why"]) for one in fields(self)}


def serving_flops(config: ModelConfig) -> int:
    """Of one request: encoder and beam search at the preset's width."""
    found = sizes(config)
    return found.encode_flops + found.decode_flops


def training_flops(config: ModelConfig) -> int:
    """Of one session, forward and backward."""
    return sizes(config).train_flops
