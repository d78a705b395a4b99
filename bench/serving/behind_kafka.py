"""A worker process behind a broker, asked at half of what it can serve."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.brokers import broker_of, no_settings_of_the_shell
from bench.serving import world
from chaos.configuration import toml
from chaos.crowd import Crowd
from inference.worker.stages import STAGES
from onerec.demo.supervisor import Supervisor
from onerec.errors import DependencyMissingError
from onerec.kafka import admin
from onerec.kafka.writer import RecordWriter
from onerec.metrics import Samples, scrape
from onerec.settings import KafkaSettings, Settings, load_settings
from onerec.weights.record import facts_of
from onerec.weights.store import WeightsStore
from schemas.records import ModelVersion, Status, VersionKind, VersionStatus
from schemas.topics import HISTORIES, ITEM_TOKENS, MODEL_VERSIONS, id_key

OUTSTANDING = 32
READY_S = 90.0
FLUSH_S = 60.0
ANSWER_S = 30.0
STAGE = "inference_worker_stage_seconds"


def measure(directory: Path, saturate_s: float, measure_s: float) -> dict[str, Any]:
    """Latencies in ms of a worker at half load. Raises OneRecError where it cannot run."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "onerec.toml"
    with broker_of(directory) as (servers, broker):
        tables = {
            "kafka": {"bootstrap_servers": servers},
            "store": {"uri": str((directory / "store").resolve())},
            "model": {"preset": world.PRESET},
        }
        config.write_text(toml(tables))
        environment = {"ONEREC_CONFIG": str(config.resolve()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with no_settings_of_the_shell(), Supervisor(directory, environment) as supervisor:
            settings = load_settings(config)
            publish(settings)
            supervisor.start("worker", "inference", "worker")
            _wait_ready(supervisor)
            found = _ask(settings, saturate_s, measure_s, lambda: scrape(supervisor.endpoints()))
    return found | {"broker": broker}


def _ask(settings: Settings, saturate_s: float, measure_s: float, look: Callable[[], Samples]) -> dict[str, Any]:
    with Crowd(settings, list(range(1, world.USERS + 1)), world.SHOWN_MS) as crowd:
        begun_s = time.monotonic()
        asked = crowd.keep_asking(OUTSTANDING, saturate_s)
        crowd.wait(asked, ANSWER_S)
        capacity = len(asked) / (time.monotonic() - begun_s)
        before = look()
        half = crowd.flood(capacity / 2, measure_s, lambda: None)
        unanswered = crowd.wait(half, ANSWER_S)
        stages = _stages(look().since(before))
        uneven = crowd.flood(capacity / 2, measure_s, lambda: None, at_random=random.Random(0))
        unanswered += crowd.wait(uneven, ANSWER_S)
        return {
            "capacity_per_s": round(capacity, 1),
            "requests": len(half),
            "unanswered": unanswered,
            **_latencies(crowd, half),
            "at_random_times": _latencies(crowd, uneven),
            "stages_ms": stages,
        }


def _latencies(crowd: Crowd, asked: range) -> dict[str, float]:
    """From sending to the answer's writing. Raises DependencyMissingError where none was answered."""
    told = [crowd.told[one] for one in asked if one in crowd.told]
    latencies = [one.latency_ms for one in told if one.status is Status.ANSWERED]
    if not latencies:
        raise DependencyMissingError("The worker answered nothing.", "See its log.")
    return {"p50_ms": float(np.median(latencies)), "p99_ms": float(np.quantile(latencies, 0.99))}


def _stages(samples: Samples) -> dict[str, dict[str, float]]:
    """By stage of a request its mean and 99th percentile in ms, the latter interpolated within a bucket."""
    found = {}
    for stage in STAGES:
        mean_s, p99_s = samples.mean(STAGE, stage=stage), samples.quantile(STAGE, 0.99, stage=stage)
        if mean_s is not None and p99_s is not None:
            found[stage] = {"mean": round(1000 * mean_s, 2), "p99": round(1000 * p99_s, 1)}
    return found


def publish(settings: Settings) -> None:
    """Topics, items, histories and one version."""
    kafka: KafkaSettings = settings.kafka
    admin.wait_for_broker(kafka, 30.0)
    admin.create_topics(kafka)
    writer = RecordWriter(kafka)
    for tokens in world.item_tokens():
        writer.send(ITEM_TOKENS, id_key(tokens.item_id), tokens)
    for history in world.histories():
        writer.send(HISTORIES, id_key(history.user_id), history)
    version = _version(settings)
    writer.send(MODEL_VERSIONS, version.model.encode(), version)
    writer.flush(FLUSH_S)


def _version(settings: Settings) -> ModelVersion:
    draft = ModelVersion(
        model=settings.model.name,
        version=1,
        step=1,
        kind=VersionKind.FULL,
        uri="",
        sha256="",
        size_bytes=0,
        offsets=(),
        metrics={},
        status=VersionStatus.PUBLISHED,
        created_ms=world.now_ms(),
        learned_produced_ms=b"",
        preset=world.PRESET,
        codebook_version=1,
    )
    artifact = WeightsStore(settings.store.uri).write_full(1, world.weights(), facts_of(draft))
    return dataclasses.replace(draft, uri=artifact.uri, sha256=artifact.sha256, size_bytes=artifact.size_bytes)


def _wait_ready(supervisor: Supervisor) -> None:
    deadline_s = time.monotonic() + READY_S
    while not scrape(supervisor.endpoints()).get("onerec_ready"):
        supervisor.check()
        if time.monotonic() > deadline_s:
            raise DependencyMissingError(f"The worker did not get ready in {READY_S:.0f} s.", "See its log.")
        time.sleep(0.1)
