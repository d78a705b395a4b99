"""From raw messages to the joins: decode, check, route; what is refused goes to dead-letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from onerec import clock
from onerec.errors import CheckFailedError
from onerec.kafka.trouble import DENIED, NO_TOPIC, explained, is_fatal
from onerec.settings import JoinerSettings
from schemas.bounds import DURATION_MS, INT, Limits, violation
from schemas.codec import DecodeError
from schemas.reasons import Reason
from schemas.records import Action, Impression
from stream.joiner.columns import Columns
from stream.joiner.items import KnownItems
from stream.joiner.partition import Partition
from stream.joiner.rows import ITEM, TIME_MS, ActionRow, ImpressionRow, action_row, impression_row
from stream.joiner.transaction import FENCED, TransactionError, beneath
from stream.joiner.watermark import IMPRESSIONS
from stream.joiner.wiring import GROUP, Wiring

LOG = logging.getLogger(__name__)
LOST_OFFSETS = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class Intake:
    """Takes batches of messages in. One thread."""

    def __init__(self, wiring: Wiring, settings: JoinerSettings, items: KnownItems) -> None:
        self._wiring = wiring
        self._items = items
        self._limits = Limits(max_future_ms=settings.max_future_ms, max_watch_ms=settings.max_watch_ms)
        self._codecs = (wiring.impression_codec, wiring.action_codec)
        self._columns = (Columns(Impression), Columns(Action))
        self._sources = {topic: source for source, topic in enumerate(wiring.inputs)}

    def take(self, messages: Sequence[Message], partitions: Mapping[int, Partition]) -> int:
        """Join these messages, of those partitions that are ours; how many they were.

        Raises CheckFailedError where the broker no longer has our offsets and DependencyMissingError for a missing
        topic or denied access, TransactionError where another process has taken our place.
        """
        batches: dict[tuple[int, int], list[Message]] = {}
        ends: dict[tuple[int, int], int] = {}
        for message in messages:
            source, number = self._sources.get(message.topic() or ""), message.partition()
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._take_error(error, message)
            elif source is not None and number is not None and number in partitions:
                if error is None:
                    batches.setdefault((source, number), []).append(message)
                else:
                    ends[source, number] = message.offset() or 0
            # Else it was revoked or is not restored yet: whoever owns it begins at its committed offset.
        now_ms = clock.now_ms()
        now_s = time.monotonic()
        caught_up = False
        for (source, number), batch in batches.items():
            caught_up = self._join(batch, source, partitions[number], now_ms, caught_up=caught_up)
            partitions[number].inputs[source].moved((batch[-1].offset() or 0) + 1, now_s)
        for (source, number), end in ends.items():
            partitions[number].inputs[source].reached(end)
        return sum(map(len, batches.values()))

    def _join(
        self, batch: Sequence[Message], source: int, partition: Partition, now_ms: int, *, caught_up: bool
    ) -> bool:
        """Join messages of one input of one partition; whether the items have been caught up with."""
        values = [message.value() for message in batch]
        rows: list[Any] = self._columns[source].read(values, bounds_of(self._limits, now_ms))
        known = self._items.ids
        take: Any = partition.join.impression if source == IMPRESSIONS else partition.join.action
        newest_ms = partition.watermark.newest_ms[source]
        for message, fast_row in zip(batch, rows, strict=True):
            row = fast_row or self._decode(message, source, partition, now_ms)
            if row is None:
                continue
            if row[ITEM] not in known and not caught_up:
                self._items.catch_up()
                caught_up = True
            if row[ITEM] not in known:
                partition.refuse(source, message, Reason.UNKNOWN_ITEM, f"item {row[ITEM]} has no semantic id")
                continue
            take(row, message)
            newest_ms = max(newest_ms, row[TIME_MS])
        partition.watermark.newest_ms[source] = newest_ms
        return caught_up

    def _decode(
        self, message: Message, source: int, partition: Partition, now_ms: int
    ) -> ImpressionRow | ActionRow | None:
        """The row of a message that is not in the fast form; None where it is refused."""
        try:
            record = self._codecs[source].decode(message.value())
        except DecodeError as error:
            partition.refuse(source, message, error.reason, error.detail)
            return None
        broken = violation(record, now_ms, self._limits)
        if broken is not None:
            partition.refuse(source, message, *broken)
            return None
        return impression_row(record) if source == IMPRESSIONS else action_row(record)

    def _take_error(self, error: KafkaError, message: Message) -> None:
        cause = beneath(error)
        if cause.code() in FENCED:
            raise TransactionError(cause)
        if error.code() in LOST_OFFSETS:
            raise CheckFailedError(
                f"The broker has lost the next records of {message.topic()}[{message.partition()}]: {error.str()}.",
                "They were deleted before they were joined: reset the joiner's group and delete the topic "
                "joiner-changelog to begin anew with what is there.",
            )
        if error.code() in NO_TOPIC or error.code() in DENIED or is_fatal(error):
            name = message.topic()  # none where it is about the group
            what = f"topic {name}" if name else f"group {self._wiring.kafka.group_prefix}{GROUP}"
            raise explained(KafkaException(error), self._wiring.kafka, what, operation="Read")
        LOG.warning("kafka: %s", error.str())


def bounds_of(limits: Limits, now_ms: int) -> dict[str, int]:
    """By field the largest value that `schemas.bounds` certainly allows; what is not named may be any from 0."""
    latest_ms = now_ms + limits.max_future_ms
    return {
        "position": INT[1],
        "time_ms": latest_ms,
        "produced_ms": latest_ms,
        "watch_ms": limits.max_watch_ms,
        "duration_ms": DURATION_MS[1],
    }
