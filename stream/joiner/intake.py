"""From raw messages to the joins: decode, check, route; what is refused goes to dead-letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from onerec.errors import CheckFailedError
from onerec.kafka.trouble import DENIED, NO_TOPIC, explained
from onerec.settings import JoinerSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.reasons import Reason
from stream.joiner.items import KnownItems
from stream.joiner.partition import Partition
from stream.joiner.transaction import FENCED, TransactionError
from stream.joiner.watermark import IMPRESSIONS
from stream.joiner.wiring import Wiring

LOG = logging.getLogger(__name__)
LOST_OFFSETS = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class Intake:
    """Takes batches of messages in. One thread."""

    def __init__(self, wiring: Wiring, settings: JoinerSettings, items: KnownItems) -> None:
        self._wiring = wiring
        self._items = items
        self._limits = Limits(max_future_ms=settings.max_future_ms, max_watch_ms=settings.max_watch_ms)
        self._codecs = (wiring.impression_codec, wiring.action_codec)
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
        now_ms = time.time_ns() // 1_000_000
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
        records = self._codecs[source].decode_many([message.value() for message in batch])
        known = self._items.ids
        limits = self._limits
        take = partition.join.impression if source == IMPRESSIONS else partition.join.action
        newest_ms = partition.watermark.newest_ms[source]
        for message, record in zip(batch, records, strict=True):
            if isinstance(record, DecodeError):
                partition.refuse(source, message, record.reason, record.detail)
                continue
            broken = violation(record, now_ms, limits)
            if broken is not None:
                partition.refuse(source, message, *broken)
                continue
            if record.item_id not in known and not caught_up:
                self._items.catch_up()
                caught_up = True
            if record.item_id not in known:
                partition.refuse(source, message, Reason.UNKNOWN_ITEM, f"item {record.item_id} has no id")
                continue
            take(record, message)
            newest_ms = max(newest_ms, record.time_ms)
        partition.watermark.newest_ms[source] = newest_ms
        return caught_up

    def _take_error(self, error: KafkaError, message: Message) -> None:
        if error.code() in FENCED:
            raise TransactionError(error)
        if error.code() in LOST_OFFSETS:
            raise CheckFailedError(
                f"The broker has lost the next records of {message.topic()}[{message.partition()}]: {error.str()}.",
                "They were deleted before they were joined: reset the joiner's group and delete the topic "
                "joiner-changelog to begin anew with what is there.",
            )
        if error.code() in NO_TOPIC or error.code() in DENIED or error.fatal():
            raise explained(KafkaException(error), self._wiring.kafka, f"topic {message.topic()}")
        LOG.warning("kafka: %s", error.str())
