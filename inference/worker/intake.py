"""Requests from the consumer group: which partitions are ours, what was read, what may be committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from inference.worker.offsets import Offsets
from onerec.kafka import clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received, RecordReader
from onerec.settings import Settings
from schemas.topics import REQUESTS

LOG = logging.getLogger(__name__)
READ = 256
COMMIT_INTERVAL_S = 0.5

Partitions = frozenset[int]


class Intake:
    """Reads requests and commits those that have been answered. One thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_partitions: Callable[[Partitions, Partitions], None],
        before_revoke: Callable[[], None],
    ) -> None:
        """Not yet in the group, see `join`.

        `on_partitions` is told of all partitions that are ours now and of those just lost; `before_revoke` has the
        answers delivered before offsets are committed for the last time. Both run inside `read` and `close`.
        """
        self._name = clients.topic_name(settings.kafka, REQUESTS)
        self._on_partitions, self._before_revoke = on_partitions, before_revoke
        self._refused = DeadLetters(settings.kafka, "worker")
        group = settings.inference.worker.group
        self._consumer: Consumer = clients.consumer(settings.kafka, group=group, fetch_wait_max_ms=20)
        self._reader = RecordReader(self._consumer, [REQUESTS], settings.kafka, refused=self._refused)
        self._offsets = Offsets()
        self._fresh: list[Received] = []
        """What the read in progress has found so far."""
        self._commit_at_s = 0.0
        self._held: Partitions = frozenset()
        """Partitions that are paused."""
        self.assigned: Partitions | None = None
        """None before the group has spoken."""

    def join(self) -> None:
        """Join the consumer group."""
        self._consumer.subscribe(
            [self._name], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def read(self, wait_s: float) -> list[Received]:
        """Requests as they come, waiting `wait_s` for the first; bad ones go to dead-letters.

        They are polled one by one: a batch may hold requests of a partition that the group took away while it was
        gathered. Those are forgotten, and to note them afterwards would move what may be committed beyond older ones.
        """
        for number in range(READ):
            messages = self._reader.poll(1, 0.0 if number else wait_s)
            if not messages:
                break
            for received in self._reader.received(messages):
                self._offsets.received(received.partition, received.offset)
                self._fresh.append(received)
        requests, self._fresh = self._fresh, []
        return requests

    def hold(self, *, back: bool) -> None:
        """Leave further requests with the broker, or fetch them again. The group goes on hearing from us in `read`."""
        wanted = (self.assigned or frozenset()) if back else frozenset()
        if pausing := wanted - self._held:
            self._consumer.pause(self._places(pausing))
        if resuming := self._held - wanted:
            self._consumer.resume(self._places(resuming))
        self._held = wanted

    def in_flight(self) -> int:
        """Requests that were read and have no answer on the broker."""
        return self._offsets.in_flight()

    def answered(self, partition: int, offset: int) -> None:
        """The answer to this request is on the broker."""
        self._offsets.answered(partition, offset)

    def unanswered(self) -> int:
        """Requests that were read and have no answer on the broker, and those that the broker told of besides."""
        unread = 0
        for place in self._consumer.position(self._places(self.assigned or ())):
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if place.offset >= 0 and high >= 0:
                unread += max(0, high - place.offset)
        return unread + self.in_flight()

    def commit_where_due(self) -> None:
        """Commit every half second, without waiting for the broker."""
        now_s = time.monotonic()
        if now_s >= self._commit_at_s:
            self._commit_at_s = now_s + COMMIT_INTERVAL_S
            positions = self._positions(self._offsets.moved())
            if positions:
                self._refused.flush()
                self._consumer.commit(offsets=positions, asynchronous=True)

    def commit(self) -> None:
        """Commit all that has been answered and wait for it."""
        self._refused.flush()
        positions = self._positions(self._offsets.answered_up_to())
        try:
            if positions:
                self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:  # the group has moved on: the next owner answers these requests again
            LOG.warning("offsets were not committed: %s", error)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()
        self._refused.flush()

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._name, partition) for partition in partitions]

    def _positions(self, offsets: dict[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._name, partition, at) for partition, at in offsets.items()]

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._now_ours((self.assigned or frozenset()) | {p.partition for p in partitions}, frozenset())

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._before_revoke()
        self.commit()
        self._on_lost(_consumer, partitions)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.hold(back=False)  # a partition that comes back later must not be paused then
        gone = frozenset(p.partition for p in partitions)
        self._offsets.forget(gone)
        self._fresh = [received for received in self._fresh if received.partition not in gone]
        self._now_ours((self.assigned or frozenset()) - gone, gone)

    def _now_ours(self, partitions: Partitions, gone: Partitions) -> None:
        self.assigned = partitions
        self._on_partitions(partitions, gone)
