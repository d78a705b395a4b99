"""The topics of a system under test: as in production, but the seed's ground stays on the broker."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from onerec.kafka import admin, clients, layout
from onerec.settings import KafkaSettings
from schemas.topics import HISTORIES, ITEM_TOKENS

TIMEOUT_S = 30.0
UNCOMPACTED = {"min.cleanable.dirty.ratio": "1"}
"""Never reached: nothing is compacted away."""


def create(kafka: KafkaSettings) -> None:
    """Make all topics.

    To make a version again from the seed takes the histories and semantic ids that the seed was made from, and
    compaction removes those as newer ones come. So the two topics keep all their records here.
    Raises DependencyMissingError for no broker, KafkaException where it refuses a topic.
    """
    client = AdminClient(clients.properties(kafka))
    topics = [
        NewTopic(
            clients.topic_name(kafka, topic),
            num_partitions=layout.partitions(kafka, topic),
            replication_factor=kafka.replication_factor,
            config=layout.configuration(kafka, topic) | UNCOMPACTED,
        )
        for topic in (HISTORIES, ITEM_TOKENS)
    ]
    for future in client.create_topics(topics, operation_timeout=TIMEOUT_S).values():
        future.result(TIMEOUT_S)
    admin.create_topics(kafka)
