"""Which partitions the group gives us, and what happens when it takes them back.

The callbacks do little, for the group waits for them: assigned partitions are paused and restored later, by slices of
the loop; revoked ones are committed and let go. A partition is ours once both its inputs are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from onerec.kafka import clients
from onerec.settings import Settings
from stream.joiner import metrics
from stream.joiner.partition import Partition
from stream.joiner.restore import Restoration
from stream.joiner.watermark import INPUTS
from stream.joiner.wiring import GROUP, Wiring

LOG = logging.getLogger(__name__)
SEEK_PATIENCE_S = 5.0


class Assignment:
    """The consumer of the group and the partitions that it owns. One thread."""

    def __init__(self, wiring: Wiring, settings: Settings, commit: Callable[[], None]) -> None:
        """Join the group; `commit` is called before partitions are given back.

        The range assignor, of either protocol, gives one member the same partitions of both inputs.
        """
        self.partitions: dict[int, Partition] = {}
        self.failure: Exception | None = None
        """What went wrong in a callback: raise it after the poll."""
        self._wiring = wiring
        self._settings = settings
        self._commit = commit
        self._parts: set[tuple[str, int]] = set()
        self._restoration: Restoration | None = None
        self._outdated = False
        """Whether a partition that is being restored was taken away. Another joiner may have gone on with it, so that
        what was read of it is the past, also where the group has given it to us again before we looked."""
        self._incremental = wiring.kafka.group_protocol == "consumer"
        self._closed = False
        self._heard = False
        membership = {"group_remote_assignor" if self._incremental else "partition_assignment_strategy": "range"}
        if settings.stream.joiner.static_member and not self._incremental:
            # KIP-848 has static members too, but refuses the successor of one that was killed until its timeout.
            membership["group_instance_id"] = f"joiner-{settings.stream.joiner.instance}"
        self.consumer = clients.consumer(
            wiring.kafka,
            group=GROUP,
            auto_offset_reset="error",  # we always say where to begin
            enable_partition_eof=True,
            fetch_message_max_bytes=262_144,  # small fetches keep the two inputs close together in event time
            **membership,
        )
        self.consumer.subscribe(
            list(wiring.inputs), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def is_restoring(self) -> bool:
        """Whether some of our partitions are not joined yet because their state is being restored."""
        return bool(self._waiting())

    def is_complete(self) -> bool:
        """Whether the group has given us our share, and all of it is restored."""
        return self._heard and not self._waiting()

    def restore(self, timeout_s: float) -> list[Partition]:
        """Go on restoring for about `timeout_s`; the partitions that became ready."""
        waiting = self._waiting()
        if self._outdated:
            self._abandon()
        if not waiting:
            return []
        if self._restoration is None:
            self._restoration = Restoration(waiting, self.consumer, self._wiring, self._settings)
        ready = self._restoration.step(timeout_s)
        if ready is None:
            return []
        restoration, self._restoration = self._restoration, None
        for partition in ready:
            self.partitions[partition.number] = partition
            self._start(partition)
        seconds = time.monotonic() - restoration.started_s
        metrics.RESTORE.observe(seconds)
        LOG.info("partitions %s restored in %.2f s", restoration.numbers, seconds)
        return ready

    def close(self) -> None:
        """Leave the group and let go of everything; what is not committed is forgotten."""
        self._closed = True
        self._drop(list(self.partitions))
        self._abandon()
        self.consumer.close()

    def _waiting(self) -> set[int]:
        """Partitions both of whose inputs are ours, and which are not restored."""
        owned = [{number for topic, number in self._parts if topic == name} for name in self._wiring.inputs]
        return set.intersection(*owned) - set(self.partitions)

    def _start(self, partition: Partition) -> None:
        """Read on where the state stands."""
        deadline_s = time.monotonic() + SEEK_PATIENCE_S
        for source in INPUTS:
            part = TopicPartition(self._wiring.inputs[source], partition.number, partition.inputs[source].next_offset)
            while True:
                try:
                    self.consumer.seek(part)
                    break
                except KafkaException as error:
                    if error.args[0].code() != KafkaError._STATE or time.monotonic() > deadline_s:
                        raise
                    time.sleep(0.01)  # the fetcher of a partition assigned just now has not started
            self.consumer.resume([part])

    def _assigned(self, consumer: Consumer, parts: Sequence[TopicPartition]) -> None:
        starts = [TopicPartition(part.topic, part.partition, OFFSET_BEGINNING) for part in parts]
        if self._incremental:
            consumer.incremental_assign(starts)
        else:
            consumer.assign(starts)
        consumer.pause(starts)
        self._heard = True
        self._parts |= {(part.topic, part.partition) for part in parts}
        LOG.info("assigned %s", _named(parts))

    def _revoked(self, _consumer: Consumer, parts: Sequence[TopicPartition]) -> None:
        if not self._closed:
            LOG.info("revoked %s", _named(parts))
            try:
                self._commit()
            except Exception as error:
                self.failure = error  # raised again by the loop, out of the callback
        self._let_go(parts)

    def _lost(self, _consumer: Consumer, parts: Sequence[TopicPartition]) -> None:
        """Others may own them already: what is not committed is theirs to join again."""
        LOG.warning("lost %s: the group did not hear from us in time", _named(parts))
        self._let_go(parts)

    def _let_go(self, parts: Iterable[TopicPartition]) -> None:
        gone = {(part.topic, part.partition) for part in parts}
        numbers = {number for _, number in gone}
        self._parts -= gone
        self._drop(numbers)
        self._outdated = self._outdated or (
            self._restoration is not None and not numbers.isdisjoint(self._restoration.numbers)
        )

    def _abandon(self) -> None:
        """Let go of what is being restored, for good."""
        if self._restoration is not None:
            self._restoration.abandon()
        self._restoration, self._outdated = None, False

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            partition = self.partitions.pop(number, None)
            if partition is not None:
                partition.store.close()


def _named(parts: Iterable[TopicPartition]) -> str:
    return ", ".join(sorted(f"{part.topic}[{part.partition}]" for part in parts)) or "nothing"
