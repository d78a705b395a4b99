"""Consumers for tests: assigned at once, since a group takes seconds to form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import TopicPartition

from onerec.kafka import admin, clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.follow import TopicFollower
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


def committed_keys(kafka: KafkaSettings, topic: Topic) -> list[bytes | None]:
    """Of all records of a topic by partition and in order, without those of aborted transactions."""
    keys: list[tuple[int, bytes | None]] = []
    follower = TopicFollower(
        kafka, topic, lambda received: keys.append((received.partition, received.key)), service="test"
    )
    follower.catch_up(60)
    assert follower.next_offsets() == admin.end_offsets(kafka, topic)
    follower.close()
    return [key for _, key in sorted(keys, key=lambda one: one[0])]


@contextmanager
def followed(kafka: KafkaSettings, topic: Topic) -> Iterator[Callable[[], list[Any]]]:
    """Every record of a topic so far, each time it is asked: to wait for some, and leave the machine to who makes them.

    To open a topic and read it all again many times a second costs what the services under test need.
    """
    records: list[Any] = []
    follower = TopicFollower(kafka, topic, lambda received: records.append(received.record), service="test")

    def so_far() -> list[Any]:
        follower.poll(0.0)
        return records

    try:
        yield so_far
    finally:
        follower.close()


def dead_letters(kafka: KafkaSettings) -> list[Received]:
    """What lies in dead-letters now."""
    return read_all(kafka, DEAD_LETTERS)


def until_it_raises(step: Callable[[], object], limit_s: float = 60.0) -> None:
    """Repeat `step`, which the test expects to raise, for a while."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        step()
