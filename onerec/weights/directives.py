"""Directives on model-versions: pin a version, roll back to one, serve the newest again; what they keep alive."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from onerec.errors import OneRecError
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import Settings
from onerec.weights.record import SERVING_SUFFIX, record_of
from onerec.weights.serving import ServingChoice
from onerec.weights.shelf import Shelf
from onerec.weights.signature import verifier_of
from schemas.records import VersionStatus
from schemas.topics import MODEL_VERSIONS

if TYPE_CHECKING:  # it loads torch, which the command line does without
    from onerec.weights.store import WeightsStore

LOG = logging.getLogger(__name__)
TIMEOUT_S = 10.0


def read_choice(settings: Settings) -> ServingChoice:
    """What readers of the model are to serve as of now. Raises DependencyMissingError for no broker or topic."""
    choice = ServingChoice()

    def apply(received: Received) -> None:
        if received.record.model == settings.model.name:
            choice.apply(received.record)

    follower = TopicFollower(settings.kafka, MODEL_VERSIONS, apply, service="versions")
    with closing(follower):
        follower.catch_up(TIMEOUT_S)
    return choice


def direct(settings: Settings, version: int, status: VersionStatus) -> None:
    """Tell all readers. Raises VersionMissingError where the store lacks the version, DependencyMissingError."""
    record = record_of(Shelf(settings.store.uri, verifier=verifier_of(settings.store)).manifest(version), status)
    writer = RecordWriter(settings.kafka)
    writer.send(MODEL_VERSIONS, f"{settings.model.name}{SERVING_SUFFIX}".encode(), record)
    writer.flush(TIMEOUT_S)


def collect(settings: Settings, store: WeightsStore) -> list[int]:
    """Remove old versions but what readers are told to serve; what was removed. For the publisher, now and then.

    Where that cannot be found out, or the store does not answer, nothing is removed until the next time.
    """
    try:
        serving = read_choice(settings).version
        removed = store.collect(settings.store.keep_versions, {serving} if serving else ())
    except OneRecError as error:
        LOG.warning("old versions stay for now: %s", error)
        return []
    if removed:
        LOG.info("removed %d old versions, %d to %d", len(removed), removed[0], removed[-1])
    return removed
