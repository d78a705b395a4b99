"""Asking a cluster for its brokers and topics: patient with a slow one, quick to see a wrong password."""

from __future__ import annotations

import time
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import ClusterMetadata, TopicMetadata  # type: ignore[attr-defined]

from onerec.errors import DependencyMissingError
from onerec.kafka.trouble import NO_BROKER, Trouble, explained, no_broker, no_topic
from onerec.settings import KafkaSettings

SLICE_S = 1.0
APPEAR_TIMEOUT_S = 5.0
APPEAR_POLL_S = 0.05


class Client(Protocol):
    """What consumers, producers and admin clients of ours have in common."""

    trouble: Trouble

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        """Librdkafka's metadata request."""

    def poll(self, timeout: float = -1) -> object:
        """Serve callbacks, `error_cb` among them."""


def metadata(client: Client, kafka: KafkaSettings, timeout_s: float | None = None) -> ClusterMetadata:
    """Brokers, topics and the cluster's id; waits for `kafka.broker_patience_s` by default.

    Raises DependencyMissingError. Asked in slices, because librdkafka tells of a refused login only between requests.
    """
    deadline_s = time.monotonic() + (kafka.broker_patience_s if timeout_s is None else timeout_s)
    while True:
        try:
            found = client.list_topics(timeout=max(0.1, min(SLICE_S, deadline_s - time.monotonic())))
        except KafkaException as error:
            client.poll(0)
            client.trouble.raise_denied()
            if time.monotonic() >= deadline_s:
                raise _no_answer(error, client, kafka) from error
        else:
            client.trouble.seen_alive()
            return found


def _no_answer(error: KafkaException, client: Client, kafka: KafkaSettings) -> DependencyMissingError:
    """With what librdkafka has told of the connection: it is silent where a broker hangs up on what it cannot read."""
    if error.args[0].code() not in NO_BROKER:
        return explained(error, kafka)
    told = client.trouble.connection or error.args[0].str()
    if client.trouble.connection is None and "security.protocol" not in kafka.librdkafka:
        told += "; one that asks for TLS or a login needs security.protocol in kafka.librdkafka"
    return no_broker(kafka, told.rstrip("."))


def require_names(client: Client, kafka: KafkaSettings, names: set[str]) -> dict[str, TopicMetadata]:
    """What the cluster tells of the topics `names`, once it knows them all, with their partitions.

    One just made may not be known to every broker yet, and a broker that stops or starts may have forgotten some. So
    they have APPEAR_TIMEOUT_S, in which the time without any broker does not count. Raises DependencyMissingError
    that names those that do not appear.
    """
    waited_s, before_s = 0.0, time.monotonic()
    while True:
        found = metadata(client, kafka).topics
        missing = {name for name in names if name not in found or not found[name].partitions}
        if not missing:
            return {name: found[name] for name in names}
        now_s = time.monotonic()
        waited_s, before_s = waited_s + min(SLICE_S, now_s - before_s), now_s
        if waited_s > APPEAR_TIMEOUT_S:
            raise no_topic(kafka, "topic " + ", ".join(sorted(missing)))
        time.sleep(APPEAR_POLL_S)
