"""What one core does, from bench.json: each figure with the bench that it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onerec.errors import SettingsError

JOINERS = ("joiner_kafkastreams", "joiner_flink", "joiner_faust", "joiner_quixstreams")


@dataclass(frozen=True, slots=True)
class Figures:
    """Rates of one core."""

    worker_requests_per_s: float
    """Of preset small, through Kafka."""
    joiner_events_per_s: float
    decode_flops_per_s: float
    train_flops_per_s: float
    sources: Mapping[str, str]
    """Which bench each is from."""


def read(results: Sequence[Mapping[str, Any]]) -> Figures:
    """Raises SettingsError that names the benches that are missing or brief."""
    known = {result["name"]: result for result in results if result["ours"] is not None}
    joiner = next((name for name in JOINERS if name in known), None)
    needed = ("request_latency", "decode_beam32", "train_dense")
    missing = [name for name in needed if name not in known] + ([] if joiner else [JOINERS[0]])
    if missing or joiner is None:
        raise SettingsError(
            f"bench.json lacks {', '.join(missing)}.", f"python -m bench {' '.join(missing)} --out bench.json"
        )
    served, decoded, trained = (known[name] for name in needed)
    decoding, training = decoded["conditions"]["ours"], trained["conditions"]["ours"]
    return Figures(
        worker_requests_per_s=served["conditions"]["behind_kafka"]["capacity_per_s"],
        joiner_events_per_s=known[joiner]["ours"],
        decode_flops_per_s=decoded["ours"] * decoding["flops_a_request"] / decoding["threads"],
        train_flops_per_s=trained["ours"] * training["flops_a_sample"] / training["threads"],
        sources={
            "worker_requests_per_s": "request_latency, capacity behind Kafka, preset small, one thread",
            "joiner_events_per_s": f"{joiner}, second half, one core",
            "decode_flops_per_s": "decode_beam32, a thread",
            "train_flops_per_s": "train_dense, a thread",
        },
    )


def brief(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any of them is of a brief run, whose figures are none."""
    return any("brief" in result["conditions"] for result in results)
