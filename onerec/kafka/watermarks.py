"""Where partitions begin and end on the broker: what "caught up" and "lag" are measured against."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaException, TopicPartition

from onerec.kafka import clients
from onerec.settings import KafkaSettings

TIMEOUT_S = 10.0
POLL_S = 0.005

Part = tuple[str, int]
"""A topic's name as on the broker and a partition."""
Bounds = tuple[int, int]
"""First offset that the broker still has, and the offset of the next record to come."""


def watermarks(
    kafka: KafkaSettings, parts: Collection[Part], *, isolation_level: str = "read_committed"
) -> dict[Part, Bounds]:
    """Bounds of each partition: of read_committed the end is before open transactions, else behind them.

    Raises DependencyMissingError for no broker or no topic.
    """
    consumer = clients.consumer(
        kafka,
        enable_partition_eof=True,
        fetch_wait_max_ms=1,
        fetch_message_max_bytes=1,
        isolation_level=isolation_level,
    )
    try:
        listed = {part: consumer.get_watermark_offsets(TopicPartition(*part), timeout=TIMEOUT_S) for part in parts}
        return _fetched(consumer, listed)
    except KafkaException as error:
        raise clients.explained(error, kafka, f"topics {', '.join(sorted({topic for topic, _ in parts}))}") from error
    finally:
        consumer.close()


def _fetched(consumer: clients.WatchedConsumer, listed: Mapping[Part, Bounds]) -> dict[Part, Bounds]:
    """Correct the listed ends by those that come with a fetch.

    The embedded broker lists the first offset of the last batch as the last one; what a fetch says is right on all.
    """
    consumer.assign([TopicPartition(*part, max(low, high - 1)) for part, (low, high) in listed.items()])
    ends: dict[Part, int] = {}
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(ends) < len(listed) and time.monotonic() < deadline_s:
        consumer.consume(1, POLL_S)
        for part, (_, listed_high) in listed.items():
            _, high = consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
            if high >= 0:
                ends[part] = max(high, listed_high)
    return {part: (low, ends.get(part, high)) for part, (low, high) in listed.items()}
