"""Reading the log by partition: a live step chooses how far to read, a rerun is told; both take the same way.

Decoding depends on the bytes alone (event times are not held against the clock here, the joiner has done that),
so a rerun refuses exactly what the first run refused.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from onerec.clock import ANY_TIME_MS
from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.kafka.trouble import DENIED, NO_TOPIC, explained, is_fatal
from onerec.settings import KafkaSettings
from schemas.bounds import violation
from schemas.codec import Codec, DecodeError
from schemas.reasons import Reason
from schemas.records import OffsetRange
from schemas.topics import Topic
from trainer.state import Partition

LOG = logging.getLogger(__name__)
FETCH = 500
ENOUGH = 10_000
"""Messages in the queues from which on a live step waits for no further ones; each partition's share of it is where
fetching pauses, so that a log that comes faster than it is learned from stays with the broker."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A message that is no valid record of its topic."""

    message: Message
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What lay between two offsets of each partition, in the order of topic, partition and offset."""

    ranges: tuple[OffsetRange, ...]
    records: tuple[Received, ...]
    bad: tuple[BadRecord, ...]
    read_s: float | None = None
    """When the first of them was read, on the monotonic clock."""

    def of(self, topic: Topic) -> tuple[Received, ...]:
        """The records of one topic."""
        return tuple(received for received in self.records if received.topic is topic)


@dataclass(slots=True)
class _Queue:
    """What has been read of one partition and not been taken."""

    topic: Topic
    taken_to: int
    read_to: int
    entries: deque[tuple[int, int, float, Received | BadRecord]] = field(default_factory=deque)
    """(timestamp_ms, offset, when it was read, record)."""
    paused: bool = False


class Intake:
    """Queues of the partitions of some topics, filled by `poll`. One thread at a time."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[Topic]) -> None:
        self._kafka = kafka
        self._topics: dict[str, tuple[Topic, Codec]] = {
            clients.topic_name(kafka, topic): (topic, codec(kafka, topic)) for topic in topics
        }
        self._queues: dict[Partition, _Queue] = {}
        self._consumer = clients.consumer(kafka, auto_offset_reset="error", enable_partition_eof=True)

    def add(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions too, from these offsets on."""
        by_name = {topic.name: topic for topic, _ in self._topics.values()}
        self._resume([key for key, queue in self._queues.items() if queue.paused])
        self._queues |= {key: _Queue(by_name[key[0]], offset, offset) for key, offset in sorted(offsets.items())}
        self._consumer.assign(
            [
                TopicPartition(clients.topic_name(self._kafka, queue.topic), partition, queue.read_to)
                for (_, partition), queue in self._queues.items()
            ]
        )

    def poll(self, timeout_s: float, wanted: Collection[Partition] = ()) -> None:
        """Fill the queues with what has come, waiting for it at most `timeout_s`.

        A partition that has its share of ENOUGH waiting is not fetched until half of it has been taken, unless it is
        `wanted`. Raises CheckFailedError where the broker no longer has the offsets and DependencyMissingError where
        it or a topic is gone.
        """
        self._hold_back(wanted)
        first = self._consumer.poll(timeout_s)
        if first is None:
            self._consumer.trouble.check(self._list_topics, self._kafka.broker_patience_s)
            return
        self._consumer.trouble.seen_alive()
        for message in (first, *self._consumer.consume(FETCH, 0)):
            self._put(message)

    def waiting(self, topic: Topic) -> int:
        """How many messages of the topic can be taken."""
        return sum(len(queue.entries) for queue in self._queues.values() if queue.topic is topic)

    def waiting_since(self, topic: Topic) -> float | None:
        """When the one that waits longest was read, on the monotonic clock; None where none waits."""
        queues = (queue for queue in self._queues.values() if queue.topic is topic)
        return min((queue.entries[0][2] for queue in queues if queue.entries), default=None)

    def has_enough(self, topic: Topic, wanted: int) -> bool:
        """Whether so many of the topic can be taken, or the queues hold more than they should."""
        return self.waiting(topic) >= wanted or sum(len(queue.entries) for queue in self._queues.values()) >= ENOUGH

    def choose(self, limits: Mapping[str, int]) -> dict[Partition, int]:
        """How far to take so that a topic gives at most `limits[name]` messages: oldest first over its partitions."""
        chosen: dict[Partition, int] = {}
        for name, limit in limits.items():
            heads = [
                (*queue.entries[0][:2], key) for key, queue in self._queues.items() if key[0] == name and queue.entries
            ]
            heapq.heapify(heads)
            counts = dict.fromkeys((key for *_, key in heads), 0)
            for _ in range(limit):
                if not heads:
                    break
                *_, key = heads[0]
                counts[key] += 1
                queue = self._queues[key]
                if counts[key] < len(queue.entries):
                    heapq.heapreplace(heads, (*queue.entries[counts[key]][:2], key))
                else:
                    heapq.heappop(heads)
            chosen |= {key: self._next_offset(key, count) for key, count in counts.items() if count}
        return chosen

    def take(self, until: Mapping[Partition, int]) -> Taken:
        """Remove everything before `until` from the queues; the caller has polled far enough."""
        ranges: list[OffsetRange] = []
        records: list[Received] = []
        bad: list[BadRecord] = []
        read_s: float | None = None
        for key in sorted(until):
            queue, first, count = self._queues[key], self._queues[key].taken_to, 0
            while queue.entries and queue.entries[0][1] < until[key]:
                _, _, came_s, record = queue.entries.popleft()
                read_s = came_s if read_s is None else min(read_s, came_s)
                count += 1
                if isinstance(record, BadRecord):
                    bad.append(record)
                else:
                    records.append(record)
            queue.taken_to = until[key]
            ranges.append(
                OffsetRange(
                    topic=key[0], partition=key[1], first_offset=first, next_offset=until[key], records=count, applied=0
                )
            )
        return Taken(tuple(ranges), tuple(records), tuple(bad), read_s)

    def reach(self, until: Mapping[Partition, int], timeout_s: float) -> None:
        """Poll until everything before `until` can be taken; raises DependencyMissingError after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while behind := [key for key, offset in until.items() if self._queues[key].read_to < offset]:
            if time.monotonic() > deadline_s:
                topic, partition = behind[0]
                wanted = until[topic, partition]
                raise DependencyMissingError(
                    f"Partition {partition} of {topic} could not be read to offset {wanted} within {timeout_s:g} s.",
                    "See the broker's log, then start again.",
                )
            self.poll(0.05, wanted=behind)

    def read_to(self, partition: Partition) -> int:
        """The offset up to which the partition has been read."""
        return self._queues[partition].read_to

    def taken_to(self, partition: Partition) -> int:
        """The offset up to which the partition has been taken."""
        return self._queues[partition].taken_to

    def end(self, partition: Partition, timeout_s: float = 5.0) -> int:
        """The partition's end as of now, asked of the broker; what has been read where it does not answer."""
        topic, number = partition
        try:
            _, high = self._consumer.get_watermark_offsets(self._named(topic, number), timeout=timeout_s)
        except KafkaException:
            return self.read_to(partition)
        return max(high, self.read_to(partition))

    def lag(self) -> int:
        """Messages between what has been taken and the ends that the broker has told with its last answers.

        A transaction's marker may come after the last record has been taken: it is read then, and nobody takes it.
        """
        lag = 0
        for (topic, partition), queue in self._queues.items():
            _, high = self._consumer.get_watermark_offsets(self._named(topic, partition), cached=True)
            taken_to = queue.taken_to if queue.entries else max(queue.taken_to, queue.read_to)
            lag += max(0, high - taken_to)
        return lag

    def oldest(self, topic: Topic) -> Received | None:
        """The record of the topic that comes next, over its partitions; None where none waits."""
        queues = (queue for queue in self._queues.values() if queue.topic is topic)
        records = (next((r for *_, r in queue.entries if isinstance(r, Received)), None) for queue in queues)
        return min((r for r in records if r is not None), key=lambda r: r.timestamp_ms, default=None)

    def cluster_id(self, timeout_s: float = 5.0) -> str | None:
        """The id of the cluster that answers now; None where none does."""
        try:
            return str(self._list_topics(timeout_s).cluster_id)
        except KafkaException:
            return None

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _hold_back(self, wanted: Collection[Partition]) -> None:
        """Pause the partitions that have enough waiting, resume those that have room again."""
        room = max(1, ENOUGH // max(1, len(self._queues)))
        full, free = [], []
        for key, queue in self._queues.items():
            waiting = len(queue.entries)
            if queue.paused and (waiting <= room // 2 or key in wanted):
                free.append(key)
            elif not queue.paused and waiting >= room and key not in wanted:
                full.append(key)
        self._pause(full)
        self._resume(free)

    def _pause(self, partitions: Sequence[Partition]) -> None:
        if partitions:
            self._consumer.pause([self._named(*key) for key in partitions])
            for key in partitions:
                self._queues[key].paused = True

    def _resume(self, partitions: Sequence[Partition]) -> None:
        if partitions:
            self._consumer.resume([self._named(*key) for key in partitions])
            for key in partitions:
                self._queues[key].paused = False

    def _list_topics(self, timeout_s: float) -> Any:
        return self._consumer.list_topics(timeout=timeout_s)

    def _named(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(self._kafka.topic_prefix + topic, partition)

    def _next_offset(self, key: Partition, count: int) -> int:
        """After `count` entries of a queue; where that empties it, after the transaction markers behind them too."""
        queue = self._queues[key]
        return queue.read_to if count == len(queue.entries) else queue.entries[count][1]

    def _put(self, message: Message) -> None:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._take_error(error, message.topic())
            return
        name, partition, offset, timestamp_ms = clients.place(message)
        topic, topic_codec = self._topics[name]
        queue = self._queues[topic.name, partition]
        if error is not None:
            queue.read_to = max(queue.read_to, offset)
        else:
            queue.read_to = offset + 1
            queue.entries.append((timestamp_ms, offset, time.monotonic(), _decoded(topic, topic_codec, message)))

    def _take_error(self, error: KafkaError, name: str | None) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise vanished(f"topic {name}: {error.str()}")
        if is_fatal(error) or error.code() in NO_TOPIC | DENIED:
            what = f"topic {name}" if name else f"group {self._consumer.group}"
            raise explained(KafkaException(error), self._kafka, what, operation="Read")
        LOG.warning("kafka: %s", error.str())


def read_topic(kafka: KafkaSettings, topic: Topic, start: Mapping[int, int], timeout_s: float) -> Taken:
    """What a topic holds from the offsets in `start`, by partition, to its end as of now. Only reads.

    Raises CheckFailedError where it ends before one of them, DependencyMissingError where it is not read in time.
    """
    ends = {(topic.name, partition): offset for partition, offset in admin.end_offsets(kafka, topic).items()}
    begins = {(topic.name, partition): offset for partition, offset in start.items()}
    for key, offset in begins.items():
        if offset > ends[key]:
            raise vanished(f"topic {topic.name} ends at offset {ends[key]}, the checkpoint stands at {offset}")
    intake = Intake(kafka, [topic])
    try:
        intake.add(begins)
        until = {key: ends[key] for key in begins}
        intake.reach(until, timeout_s)
        return intake.take(until)
    finally:
        intake.close()


def vanished(detail: str) -> CheckFailedError:
    """The sentence for a log that is not, or no longer, the one that the state was trained on."""
    return CheckFailedError(
        f"The broker no longer has the log that this trainer's checkpoint continues: {detail}.",
        "Point kafka.bootstrap_servers at the broker that has it, or move the trainer's folder under store.state_dir "
        "away: the trainer then trains a new seed.",
    )


def _decoded(topic: Topic, topic_codec: Codec, message: Message) -> Received | BadRecord:
    try:
        record: Any = topic_codec.decode(message.value())
    except DecodeError as error:
        return BadRecord(message, error.reason, error.detail)
    broken = violation(record, ANY_TIME_MS)
    if broken is not None:
        return BadRecord(message, *broken)
    _, partition, offset, timestamp_ms = clients.place(message)
    return Received(topic, partition, offset, timestamp_ms, message.key(), record)
