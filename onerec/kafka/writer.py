"""Writing records: encode, produce, and a failed delivery stops the writer instead of passing unseen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from onerec.errors import DependencyMissingError
from onerec.kafka import clients
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topics import Topic

OnDelivery = Callable[[KafkaError | None, Message], None]
QUEUE_WAIT_S = 0.05
BROKER_GRACE_S = 60.0


class RecordWriter:
    """Sends records to any topic. One thread at a time."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        transactional_id: str | None = None,
        grace_s: float = BROKER_GRACE_S,
        **properties: Any,
    ) -> None:
        """`grace_s`: how long no broker may answer before sending raises; `properties` as for clients.producer."""
        self.producer = clients.producer(kafka, transactional_id=transactional_id, **properties)
        self._kafka = kafka
        self._grace_s = grace_s
        self._targets: dict[str, tuple[str, Codec]] = {}
        self._failure: tuple[KafkaError, str] | None = None

    def send(
        self,
        topic: Topic,
        key: bytes | None,
        record: Any,
        *,
        timestamp_ms: int | None = None,
        partition: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Queue a record; it is on the broker after `flush`.

        Raises ValueError where the record does not fit its schema and DependencyMissingError where an earlier one
        could not be delivered or no broker has answered for `grace_s`.
        """
        name, topic_codec = self._target(topic)
        arguments: dict[str, Any] = {"on_delivery": self._callback(on_delivery)}
        if timestamp_ms is not None:
            arguments["timestamp"] = timestamp_ms
        if partition is not None:
            arguments["partition"] = partition
        self._produce(name, topic_codec.encode(record), key, arguments)

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was sent is on the broker; raises DependencyMissingError where it is not in time."""
        left = self.producer.flush(timeout_s)
        self.raise_failure()
        if left:
            raise clients.no_broker(self._kafka, f"{left} records were not delivered within {timeout_s:g} s")

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports; raises DependencyMissingError where one is a failure."""
        self.producer.poll(timeout_s)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the first failed delivery, or that the broker is gone or denies us."""
        if self._failure is not None:
            error, topic = self._failure
            raise clients.explained(KafkaException(error), self._kafka, f"topic {topic}")
        self.producer.trouble.raise_denied()

    def _target(self, topic: Topic) -> tuple[str, Codec]:
        try:
            return self._targets[topic.name]
        except KeyError:
            target = (clients.topic_name(self._kafka, topic), codec(self._kafka, topic))
            self._targets[topic.name] = target
            return target

    def _produce(self, name: str, value: bytes, key: bytes | None, arguments: dict[str, Any]) -> None:
        started_s = time.monotonic()
        while True:
            self.raise_failure()
            try:
                self.producer.produce(name, value, key, **arguments)
            except BufferError:
                if time.monotonic() - started_s > self._grace_s:
                    raise self._stuck() from None
                self.producer.poll(QUEUE_WAIT_S)
            else:
                self.producer.poll(0)
                return

    def _stuck(self) -> DependencyMissingError:
        return clients.no_broker(self._kafka, f"the send queue has been full for {self._grace_s:g} s")

    def _callback(self, on_delivery: OnDelivery | None) -> OnDelivery:
        if on_delivery is None:
            return self._delivered

        def both(error: KafkaError | None, message: Message) -> None:
            self._delivered(error, message)
            on_delivery(error, message)

        return both

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.producer.trouble(error)
            if self._failure is None:
                self._failure = (error, str(message.topic()))
        else:
            self.producer.trouble.seen_alive()
