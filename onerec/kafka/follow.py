"""Following a topic from its beginning without a group: for state that every process holds whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import KafkaError, Message, TopicPartition

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received, RecordReader
from onerec.settings import KafkaSettings
from schemas.topics import Topic

BATCH = 5000
FETCH_WAIT_MS = 100
"""Apache Kafka answers a fetch as soon as there is data; the embedded broker waits, and idle fetches cost it dearly."""
CATCH_UP_POLL_S = 0.02


class TopicFollower:
    """Applies every record of a topic, in order within a partition. One thread at a time."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: Topic,
        on_record: Callable[[Received], None],
        *,
        partitions: Sequence[int] | None = None,
        start: Mapping[int, int] | None = None,
        service: str,
        refused: DeadLetters | None = None,
    ) -> None:
        """Begin at `start` (next offset by partition), elsewhere at the beginning; `partitions` None for all.

        Raises DependencyMissingError for no broker or no topic, CheckFailedError where the log lacks `start`.
        """
        self._kafka = kafka
        self._topic = topic
        self._name = clients.topic_name(kafka, topic)
        self._on_record = on_record
        self._consumer = clients.consumer(
            kafka, enable_partition_eof=True, fetch_wait_max_ms=FETCH_WAIT_MS, auto_offset_reset="error"
        )
        self._refused = refused or DeadLetters(kafka, service)
        self._reader = RecordReader(self._consumer, [topic], kafka, refused=self._refused)
        self._next = self._starts(partitions, start or {})
        self._consumer.assign([TopicPartition(self._name, partition, at) for partition, at in self._next.items()])

    def catch_up(self, timeout_s: float) -> int:
        """Apply all that the topic holds as of now; how many records. Raises DependencyMissingError on timeout."""
        ends = admin.end_offsets(self._kafka, self._topic)
        deadline_s = time.monotonic() + timeout_s
        applied = 0
        while any(self._next[partition] < ends[partition] for partition in self._next):
            applied += self.poll(CATCH_UP_POLL_S)
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(
                    f"Topic {self._name} could not be read to its end within {timeout_s:g} s.",
                    "The broker is slow or a transaction hangs: see its log, then start again.",
                )
        return applied

    def poll(self, timeout_s: float) -> int:
        """Apply what has come, waiting for it at most `timeout_s`; how many records."""
        messages = self._reader.poll(BATCH, timeout_s)
        records = self._reader.received(messages)
        for record in records:
            self._on_record(record)
        for message in messages:
            self._advance(message)
        return len(records)

    def next_offsets(self) -> dict[int, int]:
        """By partition the first offset that has not been applied."""
        return dict(self._next)

    def close(self) -> None:
        """Leave the broker."""
        self._refused.flush()
        self._consumer.close()

    def _starts(self, partitions: Sequence[int] | None, start: Mapping[int, int]) -> dict[int, int]:
        bounds = admin.bounds(self._kafka, self._topic)
        starts = {}
        for partition in sorted(bounds) if partitions is None else partitions:
            low, high = bounds[partition]
            starts[partition] = start.get(partition, low)
            if not low <= starts[partition] <= high:
                raise CheckFailedError(
                    f"{self._name}[{partition}] has offsets {low} to {high}, but reading is to go on at "
                    f"{starts[partition]}: this is another log, or its records have been deleted.",
                    "Remove the local state that holds this offset, or connect to the broker that it belongs to.",
                )
        return starts

    def _advance(self, message: Message) -> None:
        error = message.error()
        _, partition, offset, _ = clients.place(message)
        if error is None:
            self._next[partition] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            # The end lies behind the last record where transaction markers follow it.
            self._next[partition] = max(self._next[partition], offset)
