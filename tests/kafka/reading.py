"""Consumers for tests: assigned at once, since a group takes seconds to form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import TopicPartition

from onerec.kafka import admin, clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received, RecordReader
from onerec.settings import KafkaSettings
from schemas.topics import DEAD_LETTERS, Topic


def assigned(kafka: KafkaSettings, topics: Iterable[Topic]) -> clients.WatchedConsumer:
    """A consumer of all partitions of these topics, from their beginning."""
    consumer = clients.consumer(kafka)
    consumer.assign(
        [
            TopicPartition(clients.topic_name(kafka, topic), partition, offset)
            for topic in topics
            for partition, offset in admin.beginning_offsets(kafka, topic).items()
        ]
    )
    return consumer


def read_all(kafka: KafkaSettings, *topics: Topic) -> list[Received]:
    """Every record of the topics that is there now; none may be refused."""
    count = sum(sum(admin.end_offsets(kafka, topic).values()) for topic in topics)
    refused = DeadLetters(kafka, "test")
    consumer = assigned(kafka, topics)
    reader = RecordReader(consumer, topics, kafka, refused=refused)
    got: list[Received] = []
    while len(got) + refused.count < count:
        got += reader.read(1000, 1.0)
    consumer.close()
    assert not refused.count
    return got


def dead_letters(kafka: KafkaSettings) -> list[Received]:
    """What lies in dead-letters now."""
    return read_all(kafka, DEAD_LETTERS)


def until_it_raises(step: Callable[[], object], limit_s: float = 30.0) -> None:
    """Repeat `step`, which the test expects to raise, for a while."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        step()
