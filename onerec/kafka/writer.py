"""Writing records: encode, produce, and a failed delivery stops the writer instead of passing unseen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from onerec.kafka import clients, delivery
from onerec.kafka.metadata import require_names
from onerec.kafka.registry import codec
from onerec.kafka.trouble import explained, no_broker
from onerec.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topics import Topic

OnDelivery = Callable[[KafkaError | None, Message], object]
QUEUE_WAIT_S = 0.05
FLUSH_SLICE_S = 0.2


class RecordWriter:
    """Sends records to any topic. One thread at a time."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        transactional_id: str | None = None,
        **properties: Any,
    ) -> None:
        """`properties` as for clients.producer."""
        self.producer = clients.producer(kafka, transactional_id=transactional_id, **properties)
        self._kafka = kafka
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

        `on_delivery(error, message)` is called from a later send, poll or flush, with the error of
        `delivery.failure`. Raises ValueError where the record does not fit its schema, and DependencyMissingError
        where the topic is missing, an earlier record could not be delivered or no broker has answered for
        `kafka.broker_patience_s`.
        """
        target = self._targets.get(topic.name)
        name, topic_codec = self._first_use(topic) if target is None else target
        arguments: dict[str, Any] = {"on_delivery": self._callback(on_delivery)}
        if timestamp_ms is not None:
            arguments["timestamp"] = max(1, timestamp_ms)  # librdkafka takes 0 for "now"
        if partition is not None:
            arguments["partition"] = partition
        self._produce(name, topic_codec.encode(record), key, arguments)

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was sent is on the broker; raises DependencyMissingError where it is not in time."""
        deadline_s = time.monotonic() + timeout_s
        while left := self._ask(self.producer.flush, max(0.0, min(FLUSH_SLICE_S, deadline_s - time.monotonic()))):
            self.raise_failure()
            if time.monotonic() >= deadline_s:
                raise no_broker(self._kafka, f"{left} records were not delivered within {timeout_s:g} s")
        self.raise_failure()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports; raises DependencyMissingError where one is a failure."""
        self._ask(self.producer.poll, timeout_s)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the first failed delivery, or that the broker is gone or denies us."""
        if self._failure is not None:
            error, topic = self._failure
            raise explained(KafkaException(error), self._kafka, f"topic {topic}", operation="Write")
        self.producer.trouble.check(self._list_topics, self._kafka.broker_patience_s)

    def _first_use(self, topic: Topic) -> tuple[str, Codec]:
        """Name and codec; the topic must exist, since to produce to a missing one makes it with a wrong layout."""
        name = clients.topic_name(self._kafka, topic)
        require_names(self.producer, self._kafka, {name})
        target = (name, codec(self._kafka, topic))
        self._targets[topic.name] = target
        return target

    def _list_topics(self, timeout_s: float) -> Any:
        return self.producer.list_topics(timeout=timeout_s)

    def _produce(self, name: str, value: bytes, key: bytes | None, arguments: dict[str, Any]) -> None:
        self.raise_failure()
        while True:
            try:
                self.producer.produce(name, value, key, **arguments)
            except BufferError:  # the queue is full: wait for deliveries
                self.poll(QUEUE_WAIT_S)
            except KafkaException as error:
                raise explained(error, self._kafka, f"topic {name}, {len(value)} bytes") from error
            else:
                self._ask(self.producer.poll, 0.0)
                return

    def _ask(self, serve: Callable[[float], int], timeout_s: float) -> int:
        """Flush or poll; raises DependencyMissingError for a fatal error, after which the producer can do nothing."""
        try:
            return serve(timeout_s)
        except KafkaException as error:
            raise explained(error, self._kafka, operation="Write") from error

    def _callback(self, on_delivery: OnDelivery | None) -> OnDelivery:
        if on_delivery is None:
            return self._delivered

        def both(told: KafkaError | None, message: Message) -> None:
            on_delivery(self._delivered(told, message), message)

        return both

    def _delivered(self, told: KafkaError | None, message: Message) -> KafkaError | None:
        """Note what a delivery report is worth, and tell."""
        error = delivery.failure(told, message)
        if error is None:
            self.producer.trouble.seen_alive()
        elif self._failure is None:
            self._failure = (error, str(message.topic()))
        return error
