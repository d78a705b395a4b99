"""Consumers and producers with the properties that were measured to fit, and errors that nobody can overlook."""

from __future__ import annotations

import logging
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from onerec.errors import DependencyMissingError
from onerec.settings import KafkaSettings
from schemas.topics import Topic

LOG = logging.getLogger(__name__)

CONSUMER_DEFAULTS: dict[str, Any] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "session.timeout.ms": 6000,
    "fetch.wait.max.ms": 50,
    "fetch.message.max.bytes": 1_048_576,
    "fetch.queue.backoff.ms": 10,  # the default of 1000 stalls a reader to a third of its rate
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 65_536,
}
PRODUCER_DEFAULTS: dict[str, Any] = {
    "partitioner": "murmur2_random",  # what Java and aiokafka use: a user has one partition whoever writes
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
}
TRANSACTION_TIMEOUT_MS = 15_000
NO_TIMESTAMP = -1
CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")

DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
NO_BROKER = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})


def topic_name(kafka: KafkaSettings, topic: Topic) -> str:
    """The topic's name on the broker: with the prefix."""
    return kafka.topic_prefix + topic.name


def place(message: Message) -> tuple[str, int, int, int]:
    """Where a message stood: topic name as on the broker, partition, offset, timestamp in ms (-1 for none)."""
    kind, timestamp_ms = message.timestamp()
    stood: tuple[Any, Any, Any] = (message.topic(), message.partition(), message.offset())
    return (*stood, timestamp_ms if kind else NO_TIMESTAMP)  # the stubs allow None; a consumed message has them all


def properties(kafka: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Properties of librdkafka to reach the broker, then the settings' own, then `more` (`a_b` for `a.b`)."""
    found: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 4}
    found.update(kafka.librdkafka)
    if kafka.sasl_password is not None:
        found["sasl.password"] = kafka.sasl_password.get_secret_value()
    found.update({_dotted(name): value for name, value in more.items()})
    return found


class WatchedConsumer(Consumer):
    """A consumer that knows whether its brokers can be reached."""

    def __init__(self, kafka: KafkaSettings, configuration: dict[str, Any]) -> None:
        self.trouble = Trouble(kafka)
        super().__init__(configuration | {"error_cb": self.trouble})


class WatchedProducer(Producer):
    """A producer that knows whether its brokers can be reached."""

    def __init__(self, kafka: KafkaSettings, configuration: dict[str, Any]) -> None:
        self.trouble = Trouble(kafka)
        super().__init__(configuration | {"error_cb": self.trouble})


def consumer(kafka: KafkaSettings, *, group: str | None = None, **more: Any) -> WatchedConsumer:
    """A consumer of `group` (the prefix is put before it); without one it can only assign, not subscribe or commit."""
    defaults = dict(CONSUMER_DEFAULTS)
    if group is not None and kafka.group_protocol == "consumer":
        defaults["group.protocol"] = "consumer"
        for name in CLASSIC_ONLY:
            defaults.pop(name, None)
    name = kafka.group_prefix + ("unused" if group is None else group)
    return WatchedConsumer(kafka, defaults | properties(kafka, group_id=name, **more))


def producer(kafka: KafkaSettings, *, transactional_id: str | None = None, **more: Any) -> WatchedProducer:
    """An idempotent producer, transactional where an id is given (call `init_transactions` first)."""
    defaults = dict(PRODUCER_DEFAULTS)
    if transactional_id is not None:
        defaults |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    return WatchedProducer(kafka, defaults | properties(kafka, **more))


class Trouble:
    """librdkafka's `error_cb`: logs what it says and remembers what a person must mend."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._denied: KafkaError | None = None
        self._down_since_s: float | None = None

    def __call__(self, error: KafkaError) -> None:
        """Called by librdkafka from poll, consume and flush."""
        LOG.warning("kafka %s: %s", self._kafka.bootstrap_servers, error.str())
        if error.code() in DENIED or error.fatal():
            self._denied = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down_since_s = self._down_since_s or time.monotonic()

    def seen_alive(self) -> None:
        """A broker has answered."""
        self._down_since_s = None

    def raise_denied(self) -> None:
        """Raise DependencyMissingError where the broker refused us for good."""
        if self._denied is not None:
            raise explained(KafkaException(self._denied), self._kafka)

    def down_s(self) -> float:
        """For how long no broker has answered, in seconds; 0 where one does."""
        return 0.0 if self._down_since_s is None else time.monotonic() - self._down_since_s


def explained(error: KafkaException, kafka: KafkaSettings, what: str = "") -> DependencyMissingError:
    """The error as a sentence with its remedy. `what` names the topic or group where there is one."""
    cause = error.args[0]
    about = f" ({what})" if what else ""
    if cause.code() in NO_TOPIC:
        return DependencyMissingError(
            f"A topic is missing on {kafka.bootstrap_servers}{about}: {cause.str()}.",
            "Run `onerec topics create`, and `onerec topics check` to see what differs.",
        )
    if cause.code() in DENIED:
        return DependencyMissingError(
            f"The broker {kafka.bootstrap_servers} denies access{about}: {cause.str()}.",
            "Mend kafka.librdkafka and kafka.sasl_password, or the broker's access rules.",
        )
    if cause.code() in NO_BROKER:
        return no_broker(kafka, cause.str())
    return DependencyMissingError(
        f"Kafka on {kafka.bootstrap_servers} failed{about}: {cause.str()}.", "See the broker's log, then start again."
    )


def no_broker(kafka: KafkaSettings, detail: str) -> DependencyMissingError:
    """The sentence for a broker that does not answer."""
    return DependencyMissingError(
        f"No Kafka broker answers at {kafka.bootstrap_servers}: {detail}.",
        "Start one, or set kafka.bootstrap_servers (ONEREC_KAFKA__BOOTSTRAP_SERVERS).",
    )


def _dotted(name: str) -> str:
    return name if name.endswith("_cb") or name in ("on_commit", "log_level") else name.replace("_", ".")
