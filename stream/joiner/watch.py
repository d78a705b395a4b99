"""Is it still the same log, does a broker answer, and how far behind are we."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import KafkaException, TopicPartition

from onerec import clock
from onerec.errors import CheckFailedError
from onerec.kafka import clients
from onerec.settings import KafkaSettings
from stream.joiner import metrics
from stream.joiner.join import BEGINNING_MS
from stream.joiner.partition import Partition
from stream.joiner.watermark import INPUTS
from stream.joiner.wiring import Wiring

CHECK_INTERVAL_S = 10.0
CHECK_TIMEOUT_S = 2.0
SHOW_INTERVAL_S = 0.25


class BrokerWatch:
    """Looks at the broker now and then. One thread."""

    def __init__(self, wiring: Wiring, consumer: clients.WatchedConsumer) -> None:
        self._wiring = wiring
        self._consumer = consumer
        self._check_s = time.monotonic() + CHECK_INTERVAL_S
        self._show_s = 0.0

    def check(self, now_s: float) -> None:
        """Raise CheckFailedError where the address now leads to another log, DependencyMissingError for no broker."""
        if now_s < self._check_s:
            return
        self._check_s = now_s + CHECK_INTERVAL_S
        self._consumer.trouble.check(self._probe, self._wiring.kafka.broker_patience_s)
        try:
            found = self._probe(CHECK_TIMEOUT_S)
        except KafkaException:
            return  # not now; the check above gives up in time
        if found != self._wiring.cluster_id:
            raise another_log(self._wiring.kafka, self._wiring.cluster_id, found)

    def show(self, partitions: Mapping[int, Partition], now_s: float) -> None:
        """Set the gauges, as of the last commit: they do not promise what may yet fail."""
        if now_s < self._show_s:
            return
        self._show_s = now_s + SHOW_INTERVAL_S
        owned = partitions.values()
        metrics.PARTITIONS.set(len(partitions))
        metrics.OPEN_IMPRESSIONS.set(sum(partition.open.impressions for partition in owned))
        metrics.WAITING_ACTIONS.set(sum(partition.open.actions for partition in owned))
        metrics.OPEN_SESSIONS.set(sum(partition.open.sessions for partition in owned))
        metrics.LAG_EVENTS.set(sum(self._lag(partition) for partition in owned))
        passed = [one.committed_watermark_ms for one in owned if one.committed_watermark_ms > BEGINNING_MS]
        if passed:
            metrics.WATERMARK_LAG.set(max(0.0, (clock.now_ms() - min(passed)) / 1000))

    def _probe(self, timeout_s: float) -> str:
        """The cluster's id."""
        return str(self._consumer.list_topics(self._wiring.inputs[0], timeout=timeout_s).cluster_id)

    def _lag(self, partition: Partition) -> int:
        lag = partition.uncommitted()
        for source in INPUTS:
            state = partition.inputs[source]
            if not state.at_end:
                part = TopicPartition(self._wiring.inputs[source], partition.number)
                _, high = self._consumer.get_watermark_offsets(part, cached=True)
                lag += max(0, high - state.next_offset)
        return lag


def another_log(kafka: KafkaSettings, before: str, now: str) -> CheckFailedError:
    """The sentence for a broker that was swapped for another one."""
    return CheckFailedError(
        f"The cluster at {kafka.bootstrap_servers} has changed from {before} to {now}: its log is another one.",
        "Start the joiner again if that is meant; it then begins anew with that log.",
    )
