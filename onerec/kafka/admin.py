"""Topics as the table in schemas/topics.py wants them: make them, say what differs; offsets and the cluster's id."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic  # type: ignore[attr-defined]

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.watermarks import Bounds, watermarks
from onerec.settings import KafkaSettings
from schemas.topics import TOPICS, Cleanup, Topic

TIMEOUT_S = 10.0


def create_topics(kafka: KafkaSettings, *, topics: tuple[Topic, ...] = TOPICS, timeout_s: float = 30.0) -> list[str]:
    """Make the topics that are missing; the names of those made. Existing ones are left as they are."""
    client = _client(kafka)
    existing = _metadata(client, kafka).topics
    wanted = [new_topic(kafka, topic) for topic in topics if clients.topic_name(kafka, topic) not in existing]
    if not wanted:
        return []
    made = []
    for name, future in client.create_topics(wanted, operation_timeout=timeout_s).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise clients.explained(error, kafka, f"topic {name}") from error
        else:
            made.append(name)
    return made


def new_topic(kafka: KafkaSettings, topic: Topic) -> NewTopic:
    """The topic as `create_topics` asks for it."""
    return NewTopic(
        clients.topic_name(kafka, topic),
        num_partitions=partitions(kafka, topic),
        replication_factor=kafka.replication_factor,
        config=configuration(kafka, topic),
    )


def partitions(kafka: KafkaSettings, topic: Topic) -> int:
    """How many partitions the topic has to have."""
    return kafka.partitions if topic.by_user else 1


def configuration(kafka: KafkaSettings, topic: Topic) -> dict[str, str]:
    """The topic's own configuration."""
    if topic.cleanup is Cleanup.COMPACT:
        return {"cleanup.policy": "compact"}
    retention_ms = -1 if topic.cleanup is Cleanup.KEEP else kafka.retention_ms
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1"}


def check_topics(kafka: KafkaSettings) -> list[str]:
    """What differs from the table, one sentence each; empty where nothing does."""
    existing = _metadata(_client(kafka), kafka).topics
    return [
        f"Topic {clients.topic_name(kafka, topic)} is missing."
        for topic in TOPICS
        if clients.topic_name(kafka, topic) not in existing
    ]


def wait_for_broker(kafka: KafkaSettings, timeout_s: float = TIMEOUT_S) -> None:
    """Return once a broker answers; raises DependencyMissingError after `timeout_s` or where access is denied."""
    client = _client(kafka)
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            client.list_topics(timeout=max(0.2, min(1.0, deadline_s - time.monotonic())))
        except KafkaException as error:
            client.trouble.raise_denied()
            if time.monotonic() >= deadline_s:
                raise clients.no_broker(kafka, error.args[0].str()) from error
        else:
            return


def cluster_id(kafka: KafkaSettings) -> str:
    """The cluster's id: another id means another log, whatever the offsets say."""
    return str(_metadata(_client(kafka), kafka).cluster_id)


def beginning_offsets(kafka: KafkaSettings, topic: Topic) -> dict[int, int]:
    """By partition the first offset that the broker still has."""
    return {partition: low for partition, (low, _) in _watermarks(kafka, topic).items()}


def end_offsets(kafka: KafkaSettings, topic: Topic) -> dict[int, int]:
    """By partition the offset of the next record to come (of read_committed: before open transactions)."""
    return {partition: high for partition, (_, high) in _watermarks(kafka, topic).items()}


def committed(kafka: KafkaSettings, group: str, topic: Topic) -> dict[int, int]:
    """By partition what `group` (without the prefix) has committed; 0 where nothing."""
    consumer = clients.consumer(kafka, group=group)
    try:
        name = clients.topic_name(kafka, topic)
        wanted = [TopicPartition(name, partition) for partition in _partitions(consumer, kafka, topic)]
        return {found.partition: max(0, found.offset) for found in consumer.committed(wanted, timeout=TIMEOUT_S)}
    except KafkaException as error:
        raise clients.explained(error, kafka, f"group {group}") from error
    finally:
        consumer.close()


class WatchedAdmin(AdminClient):
    """An admin client that knows whether the broker denies us."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.trouble = clients.Trouble(kafka)
        super().__init__(clients.properties(kafka, error_cb=self.trouble))


def _client(kafka: KafkaSettings) -> WatchedAdmin:
    return WatchedAdmin(kafka)


def _metadata(client: WatchedAdmin, kafka: KafkaSettings) -> ClusterMetadata:
    try:
        return client.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        client.poll(0)
        client.trouble.raise_denied()
        raise clients.explained(error, kafka) from error


def _partitions(consumer: clients.WatchedConsumer, kafka: KafkaSettings, topic: Topic) -> list[int]:
    name = clients.topic_name(kafka, topic)
    found = consumer.list_topics(name, timeout=TIMEOUT_S).topics.get(name)
    if found is None or not found.partitions:
        raise DependencyMissingError(f"Topic {name} is missing.", "Run `onerec topics create`.")
    return sorted(found.partitions)


def _watermarks(kafka: KafkaSettings, topic: Topic) -> dict[int, Bounds]:
    consumer = clients.consumer(kafka)
    try:
        numbers = _partitions(consumer, kafka, topic)
    finally:
        consumer.close()
    name = clients.topic_name(kafka, topic)
    found = watermarks(kafka, [(name, partition) for partition in numbers])
    return {partition: bounds for (_, partition), bounds in found.items()}
