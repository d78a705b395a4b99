"""Reads several topics at once as an onlooker: from the beginning, with no group, refusing nothing.

What cannot be decoded or breaks a bound is counted and passed over: the services put it to dead-letters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.topics import Topic

BATCH = 5000
END_POLL_S = 0.05
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

    def ends(self) -> dict[Place, int]:
        """By partition the offset of the next record to come, as of now; asks the broker afresh."""
        names = [topic for topic, _ in self._topics.values()]
        return {
            (topic.name, partition): end
            for topic in names
            for partition, end in admin.end_offsets(self._kafka, topic).items()
        }

    def known_ends(self, topics: Iterable[Topic]) -> dict[Place, int]:
        """The same for some topics as of the last fetch, without asking the broker."""
        names = {topic.name for topic in topics}
        found = {}
        for name, partition in self._next:
            if name in names:
                place = TopicPartition(self._kafka.topic_prefix + name, partition)
                found[name, partition] = self._consumer.get_watermark_offsets(place, cached=True)[1]
        return found

    def read_to_end(self, take: Callable[[list[Received]], None], timeout_s: float) -> None:
        """Hand out all that the topics hold as of now; raises DependencyMissingError where it takes too long."""
        ends, deadline_s = self.ends(), time.monotonic() + timeout_s
        while not self.reached(ends):
            take(self.poll(END_POLL_S))
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(
                    f"The topics could not be read to their ends within {timeout_s:g} s.",
                    "The broker is slow or a transaction hangs: see its log, then start again.",
                )

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
    """Up to which event time everything has been read, for producers that send about in that order.

    What was the newest event at one moment is complete once all that fetches bring in the `settle_s` after it has
    been read, and once more, since a fetch may have been waiting for room.
    """

    def __init__(self, feed: Feed, topics: Iterable[Topic], settle_s: float = 0.3) -> None:
        self._feed = feed
        self._topics = tuple(topics)
        self._settle_s = settle_s
        self._newest_ms = 0
        self._marked_ms = 0
        self._rounds_left = 0
        self._look_s = 0.0
        self._ends: dict[Place, int] | None = None

    def saw(self, time_ms: int) -> None:
        """An event of this event time has been read."""
        self._newest_ms = max(self._newest_ms, time_ms)

    def reached(self) -> int | None:
        """The event time up to which everything is known, each time that it is known anew."""
        now_s = time.monotonic()
        if not self._rounds_left:
            self._marked_ms, self._rounds_left, self._look_s, self._ends = (
                self._newest_ms,
                2,
                now_s + self._settle_s,
                None,
            )
        if now_s < self._look_s:
            return None
        if self._ends is None:
            self._ends = self._feed.known_ends(self._topics)
        if not self._feed.reached(self._ends):
            return None
        self._rounds_left, self._look_s, self._ends = self._rounds_left - 1, now_s + self._settle_s, None
        return None if self._rounds_left else self._marked_ms
