"""Reading partitions of topics from where a local copy stands to their end, as raw messages.

The end is the high watermark as an uncommitted reader sees it: a committed reader only comes there once every
transaction that has written to the partition is resolved, so nothing that was committed before can be missed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.trouble import explained
from onerec.kafka.watermarks import Part
from onerec.settings import KafkaSettings

STALLED_S = 60.0
"""Longer than a broker takes to abort the transaction of a dead producer (its timeout, and a round of checks)."""
BATCH = 5000


class Raw(NamedTuple):
    """A record as it stands in the log."""

    part: Part
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, object]


class Tail:
    """Reads until `done`. One thread at a time."""

    def __init__(
        self,
        kafka: KafkaSettings,
        starts: Mapping[Part, int],
        ends: Mapping[Part, int],
        *,
        stalled_s: float = STALLED_S,
    ) -> None:
        """From `starts` to `ends`, both as an uncommitted reader finds them (`onerec.kafka.watermarks`)."""
        self._kafka = kafka
        self._ends = dict(ends)
        self._stalled_s = stalled_s
        self._moved_s = time.monotonic()
        self.positions = dict(starts)
        self._consumer = clients.consumer(kafka, enable_partition_eof=True, fetch_wait_max_ms=10)
        self._consumer.assign([TopicPartition(*part, offset) for part, offset in starts.items()])

    def done(self) -> bool:
        """Whether every partition has been read to its end."""
        return all(self.positions[part] >= end for part, end in self._ends.items())

    def read(self, timeout_s: float) -> list[Raw]:
        """The next records, in order within a partition; none where none came in time.

        Raises DependencyMissingError where nothing has come for a minute though the end is not reached.
        """
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(BATCH, 0)]
        found = [raw for raw in map(self._take, messages) if raw is not None]
        if messages:
            self._moved_s = time.monotonic()
        elif not self.done() and time.monotonic() - self._moved_s > self._stalled_s:
            raise self._stalled()
        return found

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _take(self, message: Message) -> Raw | None:
        """Note where this puts us; the record, None where it is only the end of a partition."""
        topic, partition, offset, _ = clients.place(message)
        error = message.error()
        part = (topic, partition)
        if error is None:
            self.positions[part] = offset + 1
            return Raw(part, offset, message.key(), message.value(), dict(message.headers() or ()))
        if error.code() == KafkaError._PARTITION_EOF:
            # The end lies behind the last record where transaction markers follow it.
            self.positions[part] = max(self.positions[part], offset)
            return None
        what = f"topic {topic}" if topic else f"group {self._consumer.group}"
        raise explained(KafkaException(error), self._kafka, what, operation="Read")

    def _stalled(self) -> DependencyMissingError:
        behind = [
            f"{topic}[{partition}]"
            for (topic, partition), end in self._ends.items()
            if self.positions[topic, partition] < end
        ]
        return DependencyMissingError(
            f"{', '.join(behind)} could not be read to the end for {self._stalled_s:g} s.",
            "A transaction may hang or the broker be overloaded: see its log, then start again.",
        )
