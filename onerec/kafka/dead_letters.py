"""Refused records: written whole to dead-letters with the reason, and counted."""

from __future__ import annotations

import logging
import time

from confluent_kafka import Message
from prometheus_client import Counter

from onerec.kafka import clients
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.topics import DEAD_LETTERS, Topic

MAX_DETAIL = 2000
MAX_LETTER_KEY_BYTES = 1024
"""Of the Kafka key; the letter itself holds more. Both, with the value, have to fit `clients.max_producer_bytes`."""
LOG = logging.getLogger(__name__)
REFUSED = Counter("onerec_dead_letters_total", "Records refused.", ["service", "topic", "reason"])


def letter_of(
    kafka: KafkaSettings,
    *,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    reason: Reason,
    detail: str,
    service: str,
) -> DeadLetter:
    """The letter about a record, which fits into dead-letters however large the record is.

    A broker takes a compressed batch by its compressed size, so what comes out may be far above `max_message_bytes`.
    """
    most = kafka.max_message_bytes
    return DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        key=key if key is None else key[: most // 2],
        value=value if value is None else value[:most],
        reason=str(reason),
        detail=detail[:MAX_DETAIL].encode(errors="replace").decode(),  # a lone surrogate has no UTF-8
        service=service,
        time_ms=time.time_ns() // 1_000_000,
        truncated=len(key or b"") > most // 2 or len(value or b"") > most,
    )


def letter_key(key: bytes | None) -> bytes | None:
    """The Kafka key of a letter: that of the record, as far as it fits."""
    return key if key is None else key[:MAX_LETTER_KEY_BYTES]


class DeadLetters:
    """Where a service puts what it refuses."""

    def __init__(self, kafka: KafkaSettings, service: str, *, writer: RecordWriter | None = None) -> None:
        """With a `writer` of the service's own, refusals belong to its transactions; else they have a producer."""
        self._kafka = kafka
        self._service = service
        self._writer = writer
        self.count = 0

    def refuse(
        self,
        *,
        topic: Topic | str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        reason: Reason,
        detail: str,
    ) -> None:
        """Put one record to dead-letters. `topic` is its own, a name without the prefix."""
        name = topic if isinstance(topic, str) else topic.name
        letter = letter_of(
            self._kafka,
            topic=name,
            partition=partition,
            offset=offset,
            timestamp_ms=timestamp_ms,
            key=key,
            value=value,
            reason=reason,
            detail=detail,
            service=self._service,
        )
        LOG.debug("refused %s[%d]@%d: %s: %s", name, partition, offset, reason, detail)
        self.count += 1
        REFUSED.labels(self._service, name, str(reason)).inc()
        self._own_writer().send(DEAD_LETTERS, letter_key(key), letter)

    def refuse_message(self, message: Message, reason: Reason, detail: str) -> None:
        """Put a consumed message to dead-letters."""
        topic, partition, offset, timestamp_ms = clients.place(message)
        self.refuse(
            topic=topic.removeprefix(self._kafka.topic_prefix),
            partition=partition,
            offset=offset,
            timestamp_ms=timestamp_ms,
            key=message.key(),
            value=message.value(),
            reason=reason,
            detail=detail,
        )

    def flush(self) -> None:
        """Wait until all refusals are on the broker: call it before offsets are committed.

        Raises DependencyMissingError where it does not take them within `kafka.broker_patience_s`.
        """
        if self._writer is not None:
            self._writer.flush(self._kafka.broker_patience_s)

    def _own_writer(self) -> RecordWriter:
        if self._writer is None:
            self._writer = RecordWriter(self._kafka)
        return self._writer


class PassedOver(DeadLetters):
    """Counts what an onlooker cannot use, where a service would refuse it: onlookers write nothing."""

    def refuse_message(self, message: Message, reason: Reason, detail: str) -> None:  # noqa: ARG002 - only counted
        """Count one record."""
        self.count += 1
