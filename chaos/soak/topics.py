"""The topics of a soak: as always, but that the broker keeps the histories that were imported."""

from __future__ import annotations

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not exported by name
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from onerec.kafka import admin, clients
from onerec.settings import KafkaSettings
from schemas.topics import HISTORIES

TIMEOUT_S = 30.0
NEVER_MS = 2**62


def create_topics(kafka: KafkaSettings) -> None:
    """Make them. Raises DependencyMissingError as `admin.create_topics`, KafkaException for an older broker.

    Records carry event times, and the replayed log spans more than a segment's week: its segments would be closed and
    compacted during the run, and the audit cannot know a history whose imported record has gone.
    """
    admin.create_topics(kafka)
    never = ConfigEntry("segment.ms", str(NEVER_MS), incremental_operation=AlterConfigOpType.SET)
    name = clients.topic_name(kafka, HISTORIES)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[never])
    client = AdminClient(clients.properties(kafka))
    for altered in client.incremental_alter_configs([resource], request_timeout=TIMEOUT_S).values():
        altered.result(TIMEOUT_S)
