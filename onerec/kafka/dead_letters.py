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
LOG = logging.getLogger(__name__)
REFUSED = Counter("onerec_dead_letters_total", "Records refused.", ["service", "topic", "reason"])


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
        letter = DeadLetter(
            topic=name,
            partition=partition,
            offset=offset,
            timestamp_ms=timestamp_ms,
            key=key,
            value=value if value is None else value[: self._kafka.max_message_bytes],
            reason=str(reason),
            detail=detail[:MAX_DETAIL],
            service=self._service,
            time_ms=time.time_ns() // 1_000_000,
        )
        LOG.debug("refused %s[%d]@%d: %s: %s", name, partition, offset, reason, detail)
        self.count += 1
        REFUSED.labels(self._service, name, str(reason)).inc()
        self._own_writer().send(DEAD_LETTERS, key, letter)

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

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until all refusals are on the broker: call it before offsets are committed."""
        if self._writer is not None:
            self._writer.flush(timeout_s)

    def _own_writer(self) -> RecordWriter:
        if self._writer is None:
            self._writer = RecordWriter(self._kafka)
        return self._writer
