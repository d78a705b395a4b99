"""Reading records: poll, decode, check bounds; what is refused goes to dead-letters and reading goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from onerec.clock import held_against
from onerec.errors import CheckFailedError
from onerec.kafka import clients
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.metadata import metadata
from onerec.kafka.registry import codec
from onerec.kafka.trouble import DENIED, NO_TOPIC, explained, is_fatal
from onerec.settings import KafkaSettings
from schemas.bounds import violation
from schemas.codec import DecodeError
from schemas.rules import Limits
from schemas.topics import Topic

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A record with where it stood in the log. `timestamp_ms` is Kafka's, -1 where the record has none."""

    topic: Topic
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    record: Any


class RecordReader:
    """Reads records of the topics that its consumer is subscribed to or assigned. One thread at a time."""

    def __init__(
        self,
        consumer: clients.WatchedConsumer,
        topics: Iterable[Topic],
        kafka: KafkaSettings,
        *,
        refused: DeadLetters,
        limits: Limits | None = None,
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._refused = refused
        self._limits = limits or Limits()
        self._topics = {clients.topic_name(kafka, topic): (topic, codec(kafka, topic)) for topic in topics}

    def read(self, max_records: int, timeout_s: float) -> list[Received]:
        """The next records, as soon as there are any: at most `max_records`, none after `timeout_s`.

        Bad records are refused and left out, so a short answer does not mean that the log has ended. Raises
        DependencyMissingError for no broker, no topic or no access, CheckFailedError for offsets that are gone.
        """
        return self.received(self.poll(max_records, timeout_s))

    def poll(self, max_messages: int, timeout_s: float) -> list[Message]:
        """The next messages as they are, for `received`; raises as `read`."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            self._consumer.trouble.check(self._list_topics, self._kafka.broker_patience_s)
            return []
        self._consumer.trouble.seen_alive()
        return [first, *self._consumer.consume(max_messages - 1, 0)] if max_messages > 1 else [first]

    def received(self, messages: Sequence[Message]) -> list[Received]:
        """The records of messages that the caller has consumed, with the same checks."""
        records = (self._received(message) for message in messages)
        return [record for record in records if record is not None]

    def _received(self, message: Message) -> Received | None:
        error = message.error()
        if error is not None:
            self._take_error(error, message)
            return None
        name, partition, offset, timestamp_ms = clients.place(message)
        topic, topic_codec = self._topics[name]
        try:
            record = topic_codec.decode(message.value())
        except DecodeError as refusal:
            self._refused.refuse_message(message, refusal.reason, refusal.detail)
            return None
        broken = violation(record, held_against(topic), self._limits)
        if broken is not None:
            self._refused.refuse_message(message, *broken)
            return None
        return Received(topic, partition, offset, timestamp_ms, message.key(), record)

    def _take_error(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            return
        if error.code() in NO_TOPIC and message.topic() in metadata(self._consumer, self._kafka).topics:
            LOG.warning("kafka: %s: not known to every broker yet", error.str())
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise CheckFailedError(
                f"The broker no longer has what is to be read next: {error.str()}.",
                "Start from an older checkpoint that it still has, or from the beginning; lengthen the retention.",
            )
        elif error.code() in NO_TOPIC | DENIED or is_fatal(error):
            name = message.topic()  # none where it is about the group
            what = f"topic {name}" if name else f"group {self._consumer.group}"
            raise explained(KafkaException(error), self._kafka, what, operation="Read")
        else:
            LOG.warning("kafka: %s", error.str())

    def _list_topics(self, timeout_s: float) -> Any:
        return self._consumer.list_topics(timeout=timeout_s)
