"""Where partitions begin and end on the broker: what "caught up" and "lag" are measured against."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from onerec.kafka import clients
from onerec.kafka.metadata import require_names
from onerec.kafka.patience import PASSING, ask
from onerec.kafka.trouble import NO_TOPIC, explained, no_broker
from onerec.settings import KafkaSettings

TIMEOUT_S = 30.0
"""At least; a broker that goes away meanwhile is waited for as long as kafka.broker_patience_s says."""
SLICE_S = 5.0
"""A question to a leader that has just died is never answered, so it is asked anew."""
POLL_S = 0.005
EOF_PATIENCE_S = 2.0
BATCH = 1000

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
    consumer = clients.consumer(kafka, enable_partition_eof=True, fetch_wait_max_ms=1, isolation_level=isolation_level)
    topics = "topic " + ", ".join(sorted({topic for topic, _ in parts}))
    try:
        patience_s = max(TIMEOUT_S, kafka.broker_patience_s)
        listed = {part: _listed(consumer, kafka, part, patience_s) for part in parts}
        ends = _fetched_ends(consumer, kafka, listed, patience_s)
    except KafkaException as error:
        consumer.trouble.raise_denied()
        raise explained(error, kafka, topics) from error
    finally:
        consumer.close()
    return {part: (low, ends[part]) for part, (low, _) in listed.items()}


def _listed(consumer: clients.WatchedConsumer, kafka: KafkaSettings, part: Part, patience_s: float) -> Bounds:
    """As the partition's leader tells them; librdkafka goes on asking a dead one until it is told of the next.

    A broker that has just started may not know the partition yet.
    """

    def question() -> Bounds:
        try:
            return consumer.get_watermark_offsets(TopicPartition(*part), timeout=SLICE_S)
        except KafkaException as error:
            if error.args[0].code() in NO_TOPIC:
                require_names(consumer, kafka, {part[0]})
            else:
                consumer.list_topics(part[0], timeout=SLICE_S)
            raise

    return ask(question, patience_s, also=NO_TOPIC)


def _fetched_ends(
    consumer: clients.WatchedConsumer, kafka: KafkaSettings, listed: Mapping[Part, Bounds], patience_s: float
) -> dict[Part, int]:
    """The offset of each partition at which a fetch meets the end.

    The embedded broker lists the first offset of the last batch as if it were the last one; where a fetch ends is
    right on every broker, transaction markers included.
    """
    consumer.assign([TopicPartition(*part, max(low, high - 1)) for part, (low, high) in listed.items()])
    ends: dict[Part, int] = {}
    began_s = time.monotonic()
    while len(ends) < len(listed):
        for message in consumer.consume(BATCH, POLL_S):
            error = message.error()
            topic, partition, offset, _ = clients.place(message)
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                ends[topic, partition] = offset
            elif error is not None and error.code() in NO_TOPIC:
                require_names(consumer, kafka, {topic})
            elif error is not None and error.code() not in PASSING:
                raise KafkaException(error)
        waited_s = time.monotonic() - began_s
        if waited_s > EOF_PATIENCE_S:
            _add_fetched_highs(consumer, listed, ends)
        if waited_s > patience_s and len(ends) < len(listed):
            raise no_broker(kafka, f"the ends of partitions could not be read within {patience_s:g} s")
    return ends


def _add_fetched_highs(consumer: clients.WatchedConsumer, listed: Mapping[Part, Bounds], ends: dict[Part, int]) -> None:
    """The embedded broker under load is slow to say that a partition has ended; the last fetch names its end, too."""
    for part in listed.keys() - ends.keys():
        _, high = consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
        if high >= 0:
            ends[part] = max(high, listed[part][1])
