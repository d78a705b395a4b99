"""Directives on model-versions: pin a version, roll back to one, serve the newest again."""

from __future__ import annotations

from contextlib import closing

from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import Settings
from onerec.weights.record import SERVING_SUFFIX, record_of
from onerec.weights.serving import ServingChoice
from onerec.weights.shelf import Shelf
from schemas.records import VersionStatus
from schemas.topics import MODEL_VERSIONS

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
    record = record_of(Shelf(settings.store.uri).manifest(version), status)
    writer = RecordWriter(settings.kafka)
    writer.send(MODEL_VERSIONS, f"{settings.model.name}{SERVING_SUFFIX}".encode(), record)
    writer.flush(TIMEOUT_S)
