"""How each topic has to lie on the broker by the table of topics and the settings, and what differs from that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onerec.kafka import clients
from onerec.settings import KafkaSettings
from schemas.topics import DEAD_LETTERS, Cleanup, Topic

FOREVER = "-1"
MAX_LONG = str(2**63 - 1)
SEGMENT_BYTES = str(64 * 1024 * 1024)
NEWER_KEYS = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms")
"""Unknown before Kafka 3.6, where the bounds that they lift do not exist either."""
NOT_COMPARED = ("segment.bytes",)
"""A matter of speed, which an operator may tune."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is on the broker; `replicas` of its partition with the fewest."""

    partitions: int
    replicas: int
    configuration: Mapping[str, str | None]


def partitions(kafka: KafkaSettings, topic: Topic) -> int:
    """How many partitions the topic has to have."""
    return kafka.partitions if topic.by_user else 1


def configuration(kafka: KafkaSettings, topic: Topic) -> dict[str, str]:
    """The topic's own configuration.

    Records carry event times, and a replayed log those of its past: so the topic keeps the producer's time, no age is
    too great and none lies too far ahead (a reader refuses those, with a reason), and by default nothing is deleted
    by age: with a week's retention Kafka would delete a log of years ago within minutes.
    """
    size = clients.max_producer_bytes(kafka) if topic is DEAD_LETTERS else kafka.max_message_bytes
    shared = {
        "max.message.bytes": str(size),
        "min.insync.replicas": str(kafka.in_sync),
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": MAX_LONG,
        "message.timestamp.after.max.ms": MAX_LONG,
    }
    if topic.cleanup is Cleanup.COMPACT:
        # The segment being written is never compacted: at Kafka's 1 GB a restore would read far too much.
        return {"cleanup.policy": "compact", "segment.bytes": SEGMENT_BYTES} | shared
    retention_ms = FOREVER if topic.cleanup is Cleanup.KEEP else str(kafka.retention_ms)
    return {"cleanup.policy": "delete", "retention.ms": retention_ms, "retention.bytes": FOREVER} | shared


def differences(kafka: KafkaSettings, topic: Topic, found: Found | None) -> Iterator[str]:
    """What differs from the table, one sentence each, with what to do where `onerec topics create` does not mend it."""
    name = clients.topic_name(kafka, topic)
    if found is None:
        yield f"Topic {name} is missing."
        return
    wanted = partitions(kafka, topic)
    if found.partitions != wanted:
        yield (
            f"Topic {name} has {_count(found.partitions, 'partition')} instead of {wanted}: "
            "set kafka.partitions to what it has, or make it anew."
        )
    if found.replicas < kafka.replication_factor:
        yield (
            f"Topic {name} has {_count(found.replicas, 'replica')} instead of {kafka.replication_factor}: "
            "reassign its partitions (kafka-reassign-partitions)."
        )
    for key, value in configuration(kafka, topic).items():
        yield from _configured(name, key, value, found.configuration)


def _configured(name: str, key: str, wanted: str, found: Mapping[str, str | None]) -> Iterator[str]:
    if key in NOT_COMPARED or (key in NEWER_KEYS and key not in found):
        return
    value = found.get(key)
    if value is None:
        yield f"Topic {name} does not say its {key}, which should be {wanted}: the broker's default holds."
    elif value != wanted:
        yield f"Topic {name} has {key}={value} instead of {wanted}: alter it (kafka-configs --alter)."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
