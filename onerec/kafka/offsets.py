"""How far topics reach and how far groups have read."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaException, TopicPartition

from onerec.kafka import clients, watermarks
from onerec.kafka.metadata import require_names
from onerec.kafka.patience import ask
from onerec.kafka.trouble import explained
from onerec.settings import KafkaSettings
from schemas.topics import Topic

SLICE_S = 5.0
"""A question to a coordinator that has just died is never answered, so it is asked anew."""


def beginning_offsets(kafka: KafkaSettings, topic: Topic) -> dict[int, int]:
    """By partition the first offset that the broker still has."""
    return {partition: low for partition, (low, _) in bounds(kafka, topic).items()}


def end_offsets(kafka: KafkaSettings, topic: Topic) -> dict[int, int]:
    """By partition the end of what can be read now: the next offset, or where an open transaction begins."""
    return {partition: high for partition, (_, high) in bounds(kafka, topic).items()}


def bounds(kafka: KafkaSettings, topic: Topic) -> dict[int, watermarks.Bounds]:
    """By partition first offset and end. Raises DependencyMissingError for no broker or no topic."""
    consumer = clients.consumer(kafka)
    try:
        numbers = _partitions(consumer, kafka, topic)
    finally:
        consumer.close()
    name = clients.topic_name(kafka, topic)
    found = watermarks.watermarks(kafka, [(name, partition) for partition in numbers])
    return {partition: low_high for (_, partition), low_high in found.items()}


def committed(kafka: KafkaSettings, group: str, topic: Topic) -> dict[int, int]:
    """By partition what `group` (without the prefix) has committed; 0 where nothing."""
    consumer = clients.consumer(kafka, group=group)
    try:
        name = clients.topic_name(kafka, topic)
        wanted = [TopicPartition(name, partition) for partition in _partitions(consumer, kafka, topic)]
        answer = ask(lambda: _committed(consumer, wanted), kafka.broker_patience_s)
        return {found.partition: max(0, found.offset) for found in answer}
    except KafkaException as error:
        consumer.trouble.raise_denied()
        raise explained(error, kafka, f"group {group}") from error
    finally:
        consumer.close()


def _committed(consumer: clients.WatchedConsumer, wanted: list[TopicPartition]) -> list[TopicPartition]:
    """As the broker tells it. Raises KafkaException where it does not, for one of them or for all."""
    found: list[TopicPartition] = consumer.committed(wanted, timeout=SLICE_S)
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return found


def commit(kafka: KafkaSettings, group: str, topic: Topic, next_offsets: Mapping[int, int]) -> None:
    """Set where `group` (without the prefix) goes on, by partition. Raises KafkaException where it has members."""
    consumer = clients.consumer(kafka, group=group)
    try:
        name = clients.topic_name(kafka, topic)
        wanted = [TopicPartition(name, partition, offset) for partition, offset in next_offsets.items()]
        consumer.commit(offsets=wanted, asynchronous=False)
    finally:
        consumer.close()


def _partitions(consumer: clients.WatchedConsumer, kafka: KafkaSettings, topic: Topic) -> list[int]:
    name = clients.topic_name(kafka, topic)
    return sorted(require_names(consumer, kafka, {name})[name].partitions)
