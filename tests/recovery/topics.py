"""Records into a bus and out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from onerec.kafka import clients
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.codec import DecodeError
from schemas.topics import DEAD_LETTERS, Topic
from tests.recovery.bus import Bus, Entry


def publish(bus: Bus, kafka: KafkaSettings, topic: Topic, records: Iterable[tuple[bytes, Any]]) -> None:
    """Put (key, record) pairs on a topic; bytes go as they are."""
    name, encode = clients.topic_name(kafka, topic), codec(kafka, topic).encode
    for key, record in records:
        value = record if isinstance(record, bytes) else encode(record)
        bus.log(bus.part_of(name, key)).append(Entry(key, value, 1000))


def records(bus: Bus, kafka: KafkaSettings, topic: Topic) -> list[Any]:
    """What a committed reader of the topic finds, by partition."""
    decode = codec(kafka, topic).decode
    return [decode(entry.value) for entry in bus.committed(clients.topic_name(kafka, topic))]


def refused(bus: Bus, kafka: KafkaSettings) -> set[tuple[str, int, int, str]]:
    """What lies in dead-letters: topic, partition, offset and reason."""
    letters = records(bus, kafka, DEAD_LETTERS)
    return {(letter.topic, letter.partition, letter.offset, letter.reason) for letter in letters}


def not_done(bus: Bus, kafka: KafkaSettings, topic: Topic, is_done: Callable[[Any], bool]) -> list[tuple[int, int]]:
    """Partition and offset of what the group has committed, but is neither done nor in dead-letters."""
    name, decode = clients.topic_name(kafka, topic), codec(kafka, topic).decode

    def done(value: bytes | None) -> bool:
        try:
            return is_done(decode(value))
        except DecodeError:
            return False

    letters = {(partition, offset) for of, partition, offset, _ in refused(bus, kafka) if of == topic.name}
    return [
        (number, offset)
        for (of, number), log in bus.logs.items()
        if of == name
        for offset in range(bus.offsets.get((of, number), 0))
        if (number, offset) not in letters and not done(log[offset].value)
    ]


def ends(bus: Bus, kafka: KafkaSettings, topic: Topic) -> dict[int, int]:
    """By partition the next offset."""
    name = clients.topic_name(kafka, topic)
    return {number: len(log) for (of, number), log in bus.logs.items() if of == name}
