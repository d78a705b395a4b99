"""The arithmetic: a load, what one core does and what is assumed, to numbers of processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.sizing.assumptions import Assumptions, serving_flops, training_flops
from bench.sizing.figures import Figures
from bench.sizing.records import bytes_a_record
from onerec.model.presets import ModelConfig, preset

MEASURED_PRESET = "small"
RANKED = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many requests a second take."""

    requests_per_s: int
    events_per_s: float
    sessions_per_s: float
    ingress_mb_per_s: float
    """Into the topics, compressed, before replicas."""
    brokers: int
    partitions: int
    """Of topics keyed by user: enough for bytes, and for every worker and joiner to have one."""
    joiners: int
    workers: int
    trainer_ranks: int
    """Cores of one trainer under torchrun."""


def plan(requests_per_s: int, config: ModelConfig, figures: Figures, assume: Assumptions) -> Plan:
    """Whole processes of one core each."""
    shown = requests_per_s * assume.exposures
    events = shown * (1 + assume.actions)
    sessions = shown / config.session_items
    size = bytes_a_record(config.history_items, config.session_items, RANKED)
    rates = {
        "requests": requests_per_s,
        "recommendations": requests_per_s,
        "impressions": shown,
        "actions": shown * assume.actions,
        "sessions": sessions,
        "histories": shown,  # each exposure renews one; a joiner coalesces within a transaction, so this is the most
    }
    ingress = sum(size[topic] * rate for topic, rate in rates.items()) * assume.compression / 1e6
    widest = max(size[topic] * rate for topic, rate in rates.items()) * assume.compression / 1e6
    workers = _whole(requests_per_s / (worker_rate(config, figures) * assume.headroom))
    joiners = _whole(events / (figures.joiner_events_per_s * assume.headroom))
    partitions = max(_whole(widest / assume.partition_mb), workers, joiners)
    replicas = partitions * len(rates) * assume.replicas
    brokers = max(
        int(assume.replicas),
        _whole(ingress * assume.replicas / assume.broker_mb / assume.headroom),
        _whole(replicas / assume.broker_partitions),
    )
    learned = sessions * assume.learned
    alone = figures.train_flops_per_s / training_flops(config) * assume.headroom
    ranks = _whole(learned / alone) if learned <= alone else _whole(learned / alone / assume.ranks_efficiency)
    return Plan(requests_per_s, events, sessions, ingress, brokers, partitions, joiners, workers, ranks)


def worker_rate(config: ModelConfig, figures: Figures) -> float:
    """Requests a second of one core: measured for preset small, by operations for the others."""
    if config.name == MEASURED_PRESET:
        return figures.worker_requests_per_s
    return figures.decode_flops_per_s / serving_flops(config)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """GPUs for the paper's model."""

    requests_per_s: int
    serving: int
    training: int
    serving_tflop: float
    """Operations of one request."""
    training_tflop: float
    """Of one session."""


def gpus(requests_per_s: int, assume: Assumptions, config: ModelConfig | None = None) -> GpuPlan:
    """By operations alone, at the shares of the peak that `assume` names."""
    model = config or preset("1b")
    sessions = requests_per_s * assume.exposures / model.session_items * assume.learned
    peak, room = assume.gpu_tflops * 1e12, assume.headroom
    serving = requests_per_s * serving_flops(model) / (peak * assume.gpu_serving_mfu * room)
    training = sessions * training_flops(model) / (peak * assume.gpu_training_mfu)
    return GpuPlan(
        requests_per_s, _whole(serving), _whole(training), serving_flops(model) / 1e12, training_flops(model) / 1e12
    )


def _whole(number: float) -> int:
    return max(1, math.ceil(number - 1e-9))
