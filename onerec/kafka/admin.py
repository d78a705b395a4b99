"""Asking the broker whether it is there and which topics it has, and making topics."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from onerec.kafka import clients, layout
from onerec.kafka.metadata import metadata, require_names
from onerec.kafka.offsets import SLICE_S, beginning_offsets, bounds, committed, end_offsets
from onerec.kafka.patience import ask
from onerec.kafka.trouble import NO_TOPIC, Trouble, explained, known_properties
from onerec.settings import KafkaSettings
from schemas.topics import TOPICS, Topic

__all__ = [
    "beginning_offsets",
    "bounds",
    "check_topics",
    "cluster_id",
    "committed",
    "create_topics",
    "end_offsets",
    "require_topics",
    "wait_for_broker",
]
DESCRIBE_TIMEOUT_S = 10.0


class WatchedAdmin(AdminClient):
    """An admin client that knows whether the broker denies us; its calls raise what they meet, so it logs little."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Raises SettingsError for properties that librdkafka does not take."""
        self.trouble = Trouble(kafka, level=logging.DEBUG)
        with known_properties():
            super().__init__(clients.properties(kafka, error_cb=self.trouble))


def create_topics(kafka: KafkaSettings, *, topics: Iterable[Topic] = TOPICS, timeout_s: float = 30.0) -> list[str]:
    """Make the topics that are missing, and wait until they can be written to; the names of those made.

    A topic is seen before its leader knows of it, and a producer's first records can be lost in between
    (onerec.kafka.delivery). Existing ones stay as they are: `check_topics` says whether that is well. Raises
    DependencyMissingError.
    """
    client = WatchedAdmin(kafka)
    names = {topic: clients.topic_name(kafka, topic) for topic in topics}
    existing = metadata(client, kafka).topics
    wanted = [topic for topic, name in names.items() if name not in existing]
    made = []
    if wanted:
        asked = client.create_topics([_new(kafka, topic) for topic in wanted], operation_timeout=timeout_s)
        for topic, (name, future) in zip(wanted, asked.items(), strict=True):
            if _created(client, kafka, topic, future, timeout_s):
                made.append(name)
    found = require_names(client, kafka, set(names.values()))
    _wait_for_leaders(client, kafka, [TopicPartition(name, part) for name in found for part in found[name].partitions])
    return made


def check_topics(kafka: KafkaSettings) -> list[str]:
    """What differs from the table of topics, one sentence each; empty where nothing does."""
    client = WatchedAdmin(kafka)
    existing = metadata(client, kafka).topics
    names = {topic: clients.topic_name(kafka, topic) for topic in TOPICS}
    resources = [ConfigResource("topic", name) for name in names.values() if name in existing]
    configurations = _configurations(client, kafka, resources) if resources else {}
    found = {
        name: layout.Found(
            partitions=len(existing[name].partitions),
            replicas=min(len(partition.replicas) for partition in existing[name].partitions.values()),
            configuration=configuration,
        )
        for name, configuration in configurations.items()
    }
    return [sentence for topic, name in names.items() for sentence in layout.differences(kafka, topic, found.get(name))]


def require_topics(kafka: KafkaSettings, topics: Iterable[Topic]) -> None:
    """Return once these topics are there; raises DependencyMissingError that names those that do not appear."""
    require_names(WatchedAdmin(kafka), kafka, {clients.topic_name(kafka, topic) for topic in topics})


def wait_for_broker(kafka: KafkaSettings, timeout_s: float = 10.0) -> None:
    """Return once a broker answers; raises DependencyMissingError after `timeout_s` or where access is denied."""
    metadata(WatchedAdmin(kafka), kafka, timeout_s)


def cluster_id(kafka: KafkaSettings) -> str:
    """The cluster's id: another id means another log, whatever the offsets say."""
    return str(metadata(WatchedAdmin(kafka), kafka).cluster_id)


def _new(kafka: KafkaSettings, topic: Topic, *, without: tuple[str, ...] = ()) -> NewTopic:
    configuration = layout.configuration(kafka, topic)
    return NewTopic(
        clients.topic_name(kafka, topic),
        num_partitions=layout.partitions(kafka, topic),
        replication_factor=kafka.replication_factor,
        config={key: value for key, value in configuration.items() if key not in without},
    )


def _created(client: WatchedAdmin, kafka: KafkaSettings, topic: Topic, future: Any, timeout_s: float) -> bool:
    """Whether the topic was made by us; False where somebody else was faster."""
    name = clients.topic_name(kafka, topic)
    try:
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.INVALID_CONFIG:
                raise
            older = _new(kafka, topic, without=layout.NEWER_KEYS)
            client.create_topics([older], operation_timeout=timeout_s)[name].result(timeout_s)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise explained(error, kafka, f"topic {name}") from error
    return True


def _wait_for_leaders(client: WatchedAdmin, kafka: KafkaSettings, parts: list[TopicPartition]) -> None:
    """Return once the leader of each partition answers for it. Raises DependencyMissingError."""

    def question() -> None:
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = client.list_offsets(dict.fromkeys(parts, newest), request_timeout=SLICE_S)
        for answer in asked.values():
            answer.result()

    try:
        ask(question, kafka.broker_patience_s, also=NO_TOPIC)
    except KafkaException as error:
        raise explained(error, kafka, "the leaders of new topics") from error


def _configurations(
    client: WatchedAdmin, kafka: KafkaSettings, resources: list[ConfigResource]
) -> dict[str, dict[str, str | None]]:
    try:
        asked = client.describe_configs(resources, request_timeout=DESCRIBE_TIMEOUT_S).items()
        return {
            resource.name: {key: entry.value for key, entry in future.result(DESCRIBE_TIMEOUT_S).items()}
            for resource, future in asked
        }
    except KafkaException as error:
        raise explained(error, kafka, "describing topics") from error
