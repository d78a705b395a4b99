"""Consumers and producers with the properties that were measured to fit."""

from __future__ import annotations

import logging
import threading
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer

from onerec.kafka.trouble import Trouble, known_properties
from onerec.settings import KafkaSettings
from schemas.topics import Topic

SOCKET_TIMEOUT_MS = 10_000
"""A broker that vanished without closing its connections is given up after so long; librdkafka waits a minute."""
LOG = logging.getLogger(__name__)
CLOSE_PATIENCE_S = 15.0
CONSUMER_DEFAULTS: dict[str, Any] = {
    "socket.timeout.ms": SOCKET_TIMEOUT_MS,
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "session.timeout.ms": 6000,
    "fetch.wait.max.ms": 100,  # Apache Kafka answers at once when there is data; the embedded broker polls
    "fetch.message.max.bytes": 1_048_576,
    "fetch.queue.backoff.ms": 10,  # the default of 1000 stalls a reader to a third of its rate
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 65_536,
}
PRODUCER_DEFAULTS: dict[str, Any] = {
    "socket.timeout.ms": SOCKET_TIMEOUT_MS,
    "partitioner": "murmur2_random",  # what Java and aiokafka use: a user has one partition whoever writes
    "enable.idempotence": True,
    "acks": "all",  # of the replicas in sync: what counts as written outlives the leader
    "linger.ms": 5,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
}
TRANSACTION_TIMEOUT_MS = 15_000
NO_TIMESTAMP = -1
NO_GROUP = "unused"
"""Consumers must have a group's name; this one's joins none, but librdkafka asks for its coordinator."""
CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
UNDERSCORED = ("on_commit", "log_level")


def topic_name(kafka: KafkaSettings, topic: Topic) -> str:
    """The topic's name on the broker: with the prefix."""
    return kafka.topic_prefix + topic.name


def properties(kafka: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Properties of librdkafka to reach the broker, then the settings' own, then `more` (`a_b` for `a.b`)."""
    found: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}  # errors come by error_cb
    found.update(kafka.librdkafka)
    if kafka.sasl_password is not None:
        found["sasl.password"] = kafka.sasl_password.get_secret_value()
    found.update({_dotted(name): value for name, value in more.items()})
    return found


class WatchedConsumer(Consumer):
    """A consumer whose `trouble` knows whether its brokers can be reached."""

    def __init__(self, kafka: KafkaSettings, configuration: dict[str, Any]) -> None:
        """Raises SettingsError for properties that librdkafka does not take."""
        self.group: str = configuration["group.id"]
        self.trouble = Trouble(kafka)
        with known_properties():
            super().__init__(configuration | {"error_cb": self.trouble})

    def close(self) -> None:
        """Leave the group, within `CLOSE_PATIENCE_S`: else the broker notices that we are gone by its own timeout.

        librdkafka may wait for ever where brokers vanish in the middle of a rebalance, and no signal ends that wait.
        """
        failed: list[BaseException] = []

        def closing() -> None:
            try:
                super(WatchedConsumer, self).close()
            except BaseException as error:  # a rebalance callback's, among others: the caller's to handle
                failed.append(error)

        thread = threading.Thread(target=closing, name=f"closing {self.group}", daemon=True)
        thread.start()
        thread.join(CLOSE_PATIENCE_S)
        if thread.is_alive():
            LOG.error(
                "the consumer of group %s did not close in %.0f s, it is left behind", self.group, CLOSE_PATIENCE_S
            )
        if failed:
            raise failed[0]


class WatchedProducer(Producer):
    """A producer whose `trouble` knows whether its brokers can be reached."""

    def __init__(self, kafka: KafkaSettings, configuration: dict[str, Any]) -> None:
        """Raises SettingsError for properties that librdkafka does not take."""
        self.trouble = Trouble(kafka)
        with known_properties():
            super().__init__(configuration | {"error_cb": self.trouble})

    def flush(self, timeout: float = -1) -> int:
        """As the client's, whose fatal error is a KafkaException here, too.

        It calls `on_delivery` with the error already raised, and what Python makes of that is a SystemError.
        """
        try:
            return super().flush(timeout)
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                raise error.__cause__ from None
            raise


def consumer(kafka: KafkaSettings, *, group: str | None = None, **more: Any) -> WatchedConsumer:
    """A consumer of `group` (the prefix is put before it); without one it can only assign, not subscribe or commit."""
    defaults = dict(CONSUMER_DEFAULTS)
    if group is not None and kafka.group_protocol == "consumer":
        defaults["group.protocol"] = "consumer"
        for name in CLASSIC_ONLY:  # the broker's to decide under KIP-848; librdkafka refuses them
            defaults.pop(name, None)
    group_id = kafka.group_prefix + (NO_GROUP if group is None else group)
    return WatchedConsumer(kafka, defaults | properties(kafka, group_id=group_id, **more))


def producer(kafka: KafkaSettings, *, transactional_id: str | None = None, **more: Any) -> WatchedProducer:
    """An idempotent producer, transactional where an id is given (call `init_transactions` first)."""
    defaults = PRODUCER_DEFAULTS | {"message.max.bytes": max_producer_bytes(kafka)}
    if transactional_id is not None:
        defaults |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    return WatchedProducer(kafka, defaults | properties(kafka, **more))


def max_producer_bytes(kafka: KafkaSettings) -> int:
    """The largest message: a dead letter, which holds another message whole."""
    return 2 * kafka.max_message_bytes


def place(message: Message) -> tuple[str, int, int, int]:
    """Where a message stood: topic name as on the broker, partition, offset, timestamp in ms (-1 for none)."""
    kind, timestamp_ms = message.timestamp()
    stood: tuple[Any, Any, Any] = (message.topic(), message.partition(), message.offset())
    return (*stood, timestamp_ms if kind else NO_TIMESTAMP)  # the stubs allow None; a consumed message has them all


def _dotted(name: str) -> str:
    return name if name.endswith("_cb") or name in UNDERSCORED else name.replace("_", ".")
