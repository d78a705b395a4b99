"""Reads several topics at once as an onlooker: from the beginning, with no group, refusing nothing.

What cannot be decoded or breaks a bound is counted and passed over: the services put it to dead-letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from onerec.kafka import admin, clients
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.topics import Topic

BATCH = 5000
Place = tuple[str, int]
"""Topic name without the prefix, and partition."""


class Feed:
    """All partitions of some topics."""

    def __init__(self, kafka: KafkaSettings, topics: Iterable[Topic], *, fetch_wait_ms: int = 100) -> None:
        """Raises DependencyMissingError for no broker or no topic."""
        self.skipped = 0
        self._kafka = kafka
        self._topics = {clients.topic_name(kafka, topic): (topic, codec(kafka, topic)) for topic in topics}
        self._next: dict[Place, int] = {}
        for topic, _ in self._topics.values():
            for partition, offset in admin.beginning_offsets(kafka, topic).items():
                self._next[topic.name, partition] = offset
        self._consumer = clients.consumer(kafka, enable_partition_eof=True, fetch_wait_max_ms=fetch_wait_ms)
        self._limits = Limits()
        prefix = kafka.topic_prefix
        self._consumer.assign([TopicPartition(prefix + name, at, offset) for (name, at), offset in self._next.items()])

    def poll(self, timeout_s: float) -> list[Received]:
        """What has come, waiting for it at most `timeout_s`."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            self._consumer.trouble.raise_denied()
            return []
        now_ms = time.time_ns() // 1_000_000
        messages = [first, *self._consumer.consume(BATCH, 0)]
        records = [self._received(message, now_ms) for message in messages]
        return [record for record in records if record is not None]

    def ends(self, topics: Iterable[Topic]) -> dict[Place, int]:
        """By partition the offset of the next record to come, as of now."""
        names = {topic.name for topic in topics}
        found = {}
        for name, partition in self._next:
            if name in names:
                place = TopicPartition(self._kafka.topic_prefix + name, partition)
                try:
                    found[name, partition] = self._consumer.get_watermark_offsets(place, timeout=admin.TIMEOUT_S)[1]
                except KafkaException as error:
                    raise clients.explained(error, self._kafka, f"topic {name}") from error
        return found

    def reached(self, ends: dict[Place, int]) -> bool:
        """Whether everything before these offsets has been handed out."""
        return all(self._next[place] >= end for place, end in ends.items())

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _received(self, message: Message, now_ms: int) -> Received | None:
        error = message.error()
        if error is not None:
            self._take_error(error, message)
            return None
        name, partition, offset, timestamp_ms = clients.place(message)
        topic, topic_codec = self._topics[name]
        self._next[topic.name, partition] = offset + 1
        try:
            record = topic_codec.decode(message.value())
        except DecodeError:
            record = None
        if record is None or violation(record, now_ms, self._limits) is not None:
            self.skipped += 1
            return None
        return Received(topic, partition, offset, timestamp_ms, message.key(), record)

    def _take_error(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # The end lies behind the last record where transaction markers follow it.
            name = str(message.topic()).removeprefix(self._kafka.topic_prefix)
            place = name, int(message.partition() or 0)
            self._next[place] = max(self._next[place], int(message.offset() or 0))
        elif error.code() in clients.NO_TOPIC or error.code() in clients.DENIED or error.fatal():
            raise clients.explained(KafkaException(error), self._kafka, f"topic {message.topic()}")


class Horizon:
    """Up to which event time everything has been read, for a producer that sends about in that order.

    What was newest at one moment is complete once the ends of the partitions, asked for `settle_s` later, have been
    read: by then the producer has handed over what it sent before.
    """

    def __init__(self, feed: Feed, topics: Iterable[Topic], settle_s: float = 0.3) -> None:
        self._feed = feed
        self._topics = tuple(topics)
        self._settle_s = settle_s
        self._newest_ms = 0
        self._marked: tuple[int, float] | None = None
        self._ends: dict[Place, int] | None = None

    def saw(self, time_ms: int) -> None:
        """An event of this event time has been read."""
        self._newest_ms = max(self._newest_ms, time_ms)

    def reached(self) -> int | None:
        """The event time up to which everything is known, once there is a later one than before."""
        now_s = time.monotonic()
        if self._marked is None:
            self._marked, self._ends = (self._newest_ms, now_s), None
        elif self._ends is None:
            if now_s - self._marked[1] >= self._settle_s:
                self._ends = self._feed.ends(self._topics)
        elif self._feed.reached(self._ends):
            reached_ms, self._marked = self._marked[0], None
            return reached_ms
        return None
