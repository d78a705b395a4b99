"""`python -m inference worker`: puts the worker together."""

from __future__ import annotations

import logging
import sys

import torch

from inference.catalogue import CatalogueFollower
from inference.engine.captures import Captures
from inference.engine.index import IndexCache
from inference.engine.native import check
from inference.engine.search import Engine
from inference.histories import HistoryStore
from inference.weights import VersionFollower
from inference.worker import metrics
from inference.worker.widths import decoding_widths
from inference.worker.worker import Worker, output_topic
from onerec.device import device_of
from onerec.kafka import admin
from onerec.kafka.access import require_rights
from onerec.model.onerec import OneRec
from onerec.model.presets import preset
from onerec.model.reward import RewardModel
from onerec.service import Stop
from onerec.settings import Settings
from schemas.topics import RECOMMENDATIONS

LOG = logging.getLogger(__name__)
SWITCH_S = 0.001
"""How long another thread may keep the interpreter when decoding has ended: a version is loaded beside it."""


def run_worker(settings: Settings, stop: Stop) -> None:
    """Serve until stopped.

    Raises DependencyMissingError for no broker or missing topics, SettingsError for kernels that cannot decode here.
    """
    worker = settings.inference.worker
    torch.set_num_threads(settings.inference.decoding.threads)
    sys.setswitchinterval(SWITCH_S)
    admin.wait_for_broker(settings.kafka, settings.kafka.broker_patience_s)
    require_rights(settings, "worker")
    if worker.output_topic != RECOMMENDATIONS.name:  # a shadow worker's own topic is in no table: make it here
        admin.create_topics(settings.kafka, topics=(output_topic(settings),))
    indexes, captures, decoding = IndexCache(), Captures(), settings.inference.decoding
    device = device_of(decoding.device, "inference.decoding.device")
    check.require(decoding.kernels)
    decoding_widths(decoding, preset(settings.model.configuration))

    def prepare(model: OneRec, _reward: RewardModel) -> Engine:
        engine = Engine(
            model,
            indexes=indexes,
            captures=captures,
            kernels=decoding.kernels,
            memory_bytes=decoding.memory_cache_mb << 20,
        )
        metrics.KERNELS.labels(engine.kernels).set(1)
        return engine

    with (
        VersionFollower(settings, prepare, service="worker", pin_version=worker.pin_version, device=device) as versions,
        CatalogueFollower(
            settings.kafka, preset(settings.model.configuration), service="worker", indexes=indexes, device=device
        ) as items,
        HistoryStore(
            settings.kafka, settings.store.state_dir / f"worker-{worker.group}", service="worker"
        ) as histories,
    ):
        Worker(settings, versions=versions, catalogue=items, histories=histories).run(stop)
