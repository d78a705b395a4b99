"""From raw messages to the joins: decode, check, route; what is refused goes to dead-letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Message

from onerec import clock
from onerec.errors import CheckFailedError
from onerec.kafka.trouble import DENIED, NO_TOPIC, explained, is_fatal
from onerec.settings import JoinerSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.reasons import Reason
from stream.joiner.columns import bounds_of
from stream.joiner.items import KnownItems
from stream.joiner.partition import Partition
from stream.joiner.rows import ActionRow, ImpressionRow, action_row, impression_row
from stream.joiner.transaction import FENCED, TransactionError, beneath
from stream.joiner.watermark import IMPRESSIONS
from stream.joiner.wiring import GROUP, Wiring

LOG = logging.getLogger(__name__)
Part = tuple[int, int]
Found = TypeVar("Found")
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
        batches, ends = self._sorted(messages, partitions)
        now_ms = clock.now_ms()
        now_s = time.monotonic()
        caught_up = False
        for (source, number), came in batches.items():
            batch = _beyond(came, partitions[number].inputs[source].next_offset)
            if batch:
                caught_up = self._join(batch, source, partitions[number], now_ms, caught_up=caught_up)
                partitions[number].moved(source, (batch[-1].offset() or 0) + 1, now_s)
        for (source, number), end in ends.items():
            partitions[number].inputs[source].reached(end)
        return sum(map(len, batches.values()))

    def _sorted(
        self, messages: Sequence[Message], partitions: Mapping[int, Partition]
    ) -> tuple[dict[Part, Sequence[Message]], dict[Part, int]]:
        """By source and partition of ours what came, in order, and the ends that were reached.

        A batch mostly comes from few partitions, and a step for each message costs as much as joining it: hence the
        lists.
        """
        ends: dict[Part, int] = {}
        errors = [message.error() for message in messages]
        if any(errors):
            for message, error in zip(messages, errors, strict=True):
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._take_error(error, message)
                elif error is not None:
                    ends[self._part(message.topic(), message.partition())] = message.offset() or 0
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        topics = [message.topic() for message in messages]
        numbers = [message.partition() for message in messages]
        batches: dict[Part, Sequence[Message]] = {}
        if len(set(topics)) == len(set(numbers)) == 1:
            batches[self._part(topics[0], numbers[0])] = messages
        else:
            stood = list(zip(topics, numbers, strict=True))
            for place in dict.fromkeys(stood):
                batches[self._part(*place)] = [m for m, at in zip(messages, stood, strict=True) if at == place]
        # What is of no partition of ours was revoked or is not restored yet: its owner begins at committed offsets.
        return _ours(batches, partitions), _ours(ends, partitions)

    def _part(self, topic: str | None, number: int | None) -> Part:
        """Source and partition; a source of -1 is none of our inputs."""
        return (self._sources.get(topic or "", -1), -1 if number is None else number)

    def _join(
        self, batch: Sequence[Message], source: int, partition: Partition, now_ms: int, *, caught_up: bool
    ) -> bool:
        """Join messages of one input of one partition; whether the items have been caught up with."""
        join = partition.join
        events = join.read(source, [message.value() for message in batch], bounds_of(self._limits, now_ms))
        for place in events.left():
            row = self._decode(batch[place], source, partition, now_ms)
            if row is not None:
                events.put(place, row)
        unknown = self._items.unknown(events)
        if unknown and not caught_up:
            self._items.catch_up()
            caught_up = True
            unknown = self._items.unknown(events)
        if unknown:
            for place, item in events.drop(unknown):
                partition.refuse(source, batch[place], Reason.UNKNOWN_ITEM, f"item {item} has no semantic id")
        newest_ms = events.newest_ms()
        if newest_ms is not None:
            join.take(source, events, batch)
            partition.watermark.newest_ms[source] = max(partition.watermark.newest_ms[source], newest_ms)
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


def _ours(found: Mapping[Part, Found], partitions: Container[int]) -> dict[Part, Found]:
    return {part: what for part, what in found.items() if part[0] >= 0 and part[1] in partitions}


def _beyond(batch: Sequence[Message], next_offset: int) -> Sequence[Message]:
    """Those that are not joined yet: what stands before was fetched from an earlier place than the state is as of."""
    first = batch[0].offset() or 0
    if first >= next_offset:
        return batch
    where = f"{batch[0].topic()}[{batch[0].partition()}]"
    LOG.warning("%s: offset %d came again, joined up to %d; it is passed over", where, first, next_offset)
    return [message for message in batch if (message.offset() or 0) >= next_offset]
