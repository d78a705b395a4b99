"""Keeps one input from running far ahead of the other: its events would only wait in memory.

While a backlog is read, the broker may deliver hours of one input before the other's first record. The input that is
ahead in event time is paused while much is open and the other still has records to catch up with.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

from stream.joiner.partition import Partition
from stream.joiner.watermark import INPUTS
from stream.joiner.wiring import Wiring

OPEN_LIMIT = 60_000
"""Open impressions and waiting actions of a partition from which on an input may be paused: some 10 MB in the compiled
join, 30 MB in Python's. A pause throws away what was fetched ahead, so it is for backlogs, not for busy windows."""
SKEW_MS = 60_000
"""How far ahead an input has to be; it goes on at half of that."""


class Alignment:
    """Pauses and resumes inputs of partitions. One thread."""

    def __init__(self, wiring: Wiring, consumer: Consumer, *, open_limit: int = OPEN_LIMIT) -> None:
        self._wiring = wiring
        self._consumer = consumer
        self._open_limit = open_limit
        self._paused: dict[int, int] = {}

    def align(self, partitions: Mapping[int, Partition]) -> None:
        """Pause what is ahead, resume what is not any more."""
        for number in [number for number in self._paused if number not in partitions]:
            del self._paused[number]  # not ours any more; it comes back unpaused
        for number, partition in partitions.items():
            paused = self._paused.get(number)
            if paused is None:
                ahead = self._ahead(partition, SKEW_MS)
                if ahead is not None and partition.open.impressions + partition.open.actions > self._open_limit:
                    self._consumer.pause([self._part(ahead, number)])
                    self._paused[number] = ahead
            elif self._ahead(partition, SKEW_MS // 2) != paused:
                self._consumer.resume([self._part(paused, number)])
                del self._paused[number]

    def _ahead(self, partition: Partition, skew_ms: int) -> int | None:
        """The input that is ahead of one that has more to read; None where none is."""
        newest_ms = partition.watermark.newest_ms
        for source, other in zip(INPUTS, reversed(INPUTS), strict=True):
            if newest_ms[source] - newest_ms[other] > skew_ms and not partition.inputs[other].at_end:
                return source
        return None

    def _part(self, source: int, number: int) -> TopicPartition:
        return TopicPartition(self._wiring.inputs[source], number)
