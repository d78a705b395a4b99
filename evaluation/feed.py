"""Reads several topics at once as an onlooker: from the beginning, with no group, refusing nothing.

What cannot be decoded or breaks a bound is counted and passed over: the services put it to dead-letters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, Message, TopicPartition

from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.dead_letters import PassedOver
from onerec.kafka.reader import Received, RecordReader
from onerec.settings import KafkaSettings
from schemas.topics import Topic

BATCH = 5000
END_POLL_S = 0.05
Place = tuple[str, int]
"""Topic name without the prefix, and partition."""


class Feed:
    """All partitions of some topics."""

    def __init__(self, kafka: KafkaSettings, topics: Iterable[Topic], *, fetch_wait_ms: int = 100) -> None:
        """Raises DependencyMissingError for no broker or no topic."""
        self._kafka = kafka
        self._topics = tuple(topics)
        self._passed_over = PassedOver(kafka, "evaluation")
        self._next: dict[Place, int] = {}
        for topic in self._topics:
            for partition, offset in admin.beginning_offsets(kafka, topic).items():
                self._next[topic.name, partition] = offset
        self._consumer = clients.consumer(kafka, enable_partition_eof=True, fetch_wait_max_ms=fetch_wait_ms)
        self._reader = RecordReader(self._consumer, self._topics, kafka, refused=self._passed_over)
        prefix = kafka.topic_prefix
        self._consumer.assign([TopicPartition(prefix + name, at, offset) for (name, at), offset in self._next.items()])

    @property
    def skipped(self) -> int:
        """Records that could not be decoded or broke a bound."""
        return self._passed_over.count

    def poll(self, timeout_s: float) -> list[Received]:
        """What has come, waiting for it at most `timeout_s`."""
        messages = self._reader.poll(BATCH, timeout_s)
        for message in messages:
            self._advance(message)
        return self._reader.received(messages)

    def ends(self) -> dict[Place, int]:
        """By partition the offset of the next record to come, as of now; asks the broker afresh."""
        return {
            (topic.name, partition): end
            for topic in self._topics
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

    def _advance(self, message: Message) -> None:
        error = message.error()
        name, partition, offset, _ = clients.place(message)
        place = name.removeprefix(self._kafka.topic_prefix), partition
        if error is None:
            self._next[place] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            # The end lies behind the last record where transaction markers follow it.
            self._next[place] = max(self._next[place], offset)


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
