"""Reads partitions from beginning to end without a group, one after another, in the order of their offsets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka import admin, clients
from onerec.kafka.metadata import metadata
from onerec.kafka.trouble import explained
from onerec.kafka.watermarks import Bounds, watermarks
from onerec.settings import KafkaSettings
from schemas.topics import Topic

BATCH = 5000
POLL_S = 0.2
BROKER_TIMEOUT_S = 5.0
PATIENCE_S = 90.0
"""Without a record for so long the audit gives up: transactions of the dead are aborted long before."""
ASK_AGAIN_S = 0.2
NOT_YET = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._WAIT_COORD, KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError.NOT_COORDINATOR,
     KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)  # fmt: skip


class Log:
    """The topics as a committed reader gets them. One thread."""

    def __init__(self, kafka: KafkaSettings, topics: Iterable[Topic]) -> None:
        """Raises DependencyMissingError for no broker and for topics that are missing."""
        admin.wait_for_broker(kafka, BROKER_TIMEOUT_S)
        admin.require_topics(kafka, topics)
        self._kafka = kafka
        self._consumer = clients.consumer(kafka, enable_partition_eof=True, auto_offset_reset="error")

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def partitions(self, topic: Topic) -> list[int]:
        """The topic's partitions."""
        return sorted(metadata(self._consumer, self._kafka).topics[self._name(topic)].partitions)

    def bounds(self, *topics: Topic) -> dict[tuple[str, int], Bounds]:
        """By topic and partition the first offset and the end as of now, open transactions included.

        All that was committed before this call lies within; reading to such an end waits for what is open.
        """
        parts = {(self._name(topic), n): (topic.name, n) for topic in topics for n in self.partitions(topic)}
        found = watermarks(self._kafka, list(parts), isolation_level="read_uncommitted")
        return {parts[part]: bounds for part, bounds in found.items()}

    def messages(self, topic: Topic, partition: int, bounds: Bounds) -> Iterator[Message]:
        """The messages of a partition. Raises DependencyMissingError where its end cannot be reached."""
        name, (position, end) = self._name(topic), bounds
        if position >= end:
            return
        self._consumer.assign([TopicPartition(name, partition, position)])
        last_s = time.monotonic()
        while position < end:
            first = self._consumer.poll(POLL_S)
            for message in () if first is None else (first, *self._consumer.consume(BATCH, 0)):
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._take_error(error, f"topic {name}")
                    continue
                if (message.topic(), message.partition()) != (name, partition):
                    continue
                at = message.offset() or 0
                if error is None and at < end:
                    position, last_s = at + 1, time.monotonic()
                    yield message
                else:
                    position = max(position, at)
            if time.monotonic() - last_s > PATIENCE_S:
                raise _stuck(name, partition, position, end)
        self._consumer.unassign()

    def committed(self, group: str, topic: Topic) -> dict[int, int]:
        """By partition what a group has committed, 0 where nothing. Waits for transactions over these offsets."""
        consumer = clients.consumer(self._kafka, group=group)
        wanted = [TopicPartition(self._name(topic), partition) for partition in self.partitions(topic)]
        began_s = time.monotonic()
        try:
            while True:
                try:
                    found = consumer.committed(wanted, timeout=PATIENCE_S / 9)
                    for one in found:
                        if one.error is not None:
                            raise KafkaException(one.error)
                    return {one.partition: max(0, one.offset) for one in found}
                except KafkaException as error:
                    consumer.trouble.raise_denied()
                    if error.args[0].code() not in NOT_YET or time.monotonic() - began_s > PATIENCE_S:
                        raise explained(error, self._kafka, f"committed offsets of group {group}") from error
                    time.sleep(ASK_AGAIN_S)
        finally:
            consumer.close()

    def _name(self, topic: Topic) -> str:
        return clients.topic_name(self._kafka, topic)

    def _take_error(self, error: KafkaError, what: str) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise CheckFailedError(
                f"Records of {what} were deleted while they were read: {error.str()}.", "Run the audit again."
            )
        if error.fatal() or not error.retriable():
            self._consumer.trouble.raise_denied()
            self._consumer.trouble.check(lambda s: self._consumer.list_topics(timeout=s), self._kafka.broker_patience_s)


def _stuck(name: str, partition: int, position: int, end: int) -> DependencyMissingError:
    return DependencyMissingError(
        f"{name}[{partition}] could not be read from offset {position} to {end}: a transaction is open there, or the "
        "broker is slow.",
        "Start the service that wrote last again, which ends its transaction, then run the audit again.",
    )
