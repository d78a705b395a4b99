"""The joiner's loop: read, join, commit; begin anew from what is committed after any failed transaction."""

from __future__ import annotations

import logging
import time
from contextlib import closing

from confluent_kafka import KafkaError, KafkaException, Message

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.kafka.access import require_rights
from onerec.kafka.admin import wait_for_broker
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.trouble import DENIED, NO_RIGHT, explained
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings
from stream.joiner import metrics
from stream.joiner.alignment import Alignment
from stream.joiner.assignment import Assignment
from stream.joiner.garbage import PacedCollection
from stream.joiner.intake import Intake
from stream.joiner.items import AnyItem, ItemsWithTokens, KnownItems
from stream.joiner.partition import Partition
from stream.joiner.transaction import TransactionError, Transactions, transactional_id
from stream.joiner.watch import BrokerWatch, another_log
from stream.joiner.wiring import GROUP, Wiring, wire

LOG = logging.getLogger(__name__)
BATCH = 2000
"""Messages taken from the consumer together: mostly of one partition, whose fetch brings some 4,000."""
MOST_CHANGED = 20_000
"""Users of one transaction, each with a history and a state of some KB: whatever its events are, it stays bearable."""
IDLE_WAIT_S = 0.1
RESTORE_SLICE_S = 0.05
POLL_INTERVAL_S = 0.5
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
GIVE_UP_AFTER = 12
"""Failures in a row, about a minute, after which a person has to look."""
FENCED_AGAIN_S = 60.0


def run_joiner(settings: Settings, stop: Stop) -> None:
    """Join until asked to stop. Raises OneRecError for what a person must mend."""
    kafka, joiner = settings.kafka, settings.stream.joiner
    require_rights(settings, "joiner")
    wiring = wire(kafka)
    items: KnownItems = ItemsWithTokens(kafka, DeadLetters(kafka, "joiner")) if joiner.known_items_only else AnyItem()
    failures = Failures(kafka, joiner.instance)
    try:
        while not stop.is_set():
            try:
                with closing(Joiner(settings, wiring, items, failures)) as life:
                    life.run(stop)
            except TransactionError as error:
                if error.cause.code() in NO_RIGHT:
                    require_rights(settings, "joiner")  # names the topic, of which the cause says nothing
                failures.add(error)
                stop.wait(failures.pause_s())
                wiring = _same_log(kafka, wiring)
    finally:
        items.close()


def _same_log(kafka: KafkaSettings, before: Wiring) -> Wiring:
    """Look at the broker again; one that does not answer yet is waited for. Raises CheckFailedError for another log."""
    wait_for_broker(kafka, kafka.broker_patience_s)
    wiring = wire(kafka)
    if wiring.cluster_id != before.cluster_id:
        raise another_log(kafka, before.cluster_id, wiring.cluster_id)
    return wiring


class Failures:
    """Failed transactions since the last one that was committed."""

    def __init__(self, kafka: KafkaSettings, instance: str) -> None:
        self._kafka = kafka
        self._instance = instance
        self._in_row = 0
        self._fenced_s: float | None = None

    def add(self, error: TransactionError) -> None:
        """Note one. Raises CheckFailedError or DependencyMissingError where beginning anew will not help."""
        metrics.REBUILDS.inc()
        self._in_row += 1
        if error.cause.code() in DENIED:
            raise explained(KafkaException(error.cause), self._kafka, self._denied(error.cause)) from error
        LOG.warning("a transaction failed (%s): beginning anew from what is committed", error)
        now_s = time.monotonic()
        if error.fenced:
            if self._fenced_s is not None and now_s - self._fenced_s < FENCED_AGAIN_S:
                raise CheckFailedError(
                    f"Another joiner of instance {self._instance!r} runs: it has fenced this one twice.",
                    "Give each its own stream.joiner.instance.",
                )
            self._fenced_s = now_s
        if self._in_row >= GIVE_UP_AFTER:
            raise DependencyMissingError(
                f"{self._in_row} transactions in a row failed, the last with: {error}.",
                "See the broker's log; nothing is lost, start again once it commits.",
            )

    def _denied(self, cause: KafkaError) -> str:
        """What the joiner has no right to."""
        kinds = {
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Write on transactional id "
            + transactional_id(self._kafka, self._instance),
            KafkaError.GROUP_AUTHORIZATION_FAILED: f"Read on group {self._kafka.group_prefix}{GROUP}",
            KafkaError.TOPIC_AUTHORIZATION_FAILED: "Write on a topic of its transactions",
        }
        return kinds.get(cause.code(), "transactions of the joiner")

    def none(self) -> None:
        """A transaction was committed."""
        self._in_row = 0

    def pause_s(self) -> float:
        """How long to wait before the next life."""
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._in_row - 1)))


class Joiner:
    """One life: a producer, a membership in the group, and the state of its partitions."""

    def __init__(self, settings: Settings, wiring: Wiring, items: KnownItems, failures: Failures) -> None:
        """Raises TransactionError where the broker does not give us a producer."""
        self._settings = settings.stream.joiner
        self._items = items
        self._failures = failures
        # First the producer: it aborts what a dead predecessor left open, before offsets and state are read.
        self._transactions = Transactions(wiring, self._settings.instance)
        self._intake = Intake(wiring, self._settings, items)
        self._assignment = Assignment(wiring, settings, self._commit)
        self._alignment = Alignment(wiring, self._assignment.consumer)
        self._watch = BrokerWatch(wiring, self._assignment.consumer)
        self._garbage = PacedCollection()
        self._poll_s = 0.0
        self._events = 0
        self._writing: list[Partition] = []
        """Of which the open transaction writes the work."""
        self._begun_s = 0.0
        self._since_s: float | None = None
        """When the oldest change that no transaction has was made, on the monotonic clock."""

    def run(self, stop: Stop) -> None:
        """Turn by turn until asked to stop, then commit. Raises TransactionError and OneRecError."""
        while not stop.is_set():
            self.turn()
            if self._assignment.is_complete():
                stop.ready()
        self._commit()

    def turn(self) -> None:
        """Read what is there, join it, and commit where that is due."""
        messages = self._read()
        partitions = self._assignment.partitions
        self._events += self._intake.take(messages, partitions)
        now_s = time.monotonic()
        for partition in partitions.values():
            partition.advance(now_s)
        if self._since_s is None and any(partition.has_changes() for partition in partitions.values()):
            self._since_s = now_s
        self._commit_where_due(now_s, is_pressed=len(messages) >= BATCH)
        if self._assignment.is_restoring() and self._assignment.restore(RESTORE_SLICE_S):
            self._garbage.freeze()
            self._commit()
        self._alignment.align(partitions)
        self._between(now_s)

    def close(self) -> None:
        """Let go of everything; what is not committed is forgotten."""
        self._assignment.close()
        self._transactions.discard()
        self._garbage.stop()

    def _read(self) -> list[Message]:
        """A batch of messages as soon as there are any; `consume` with a timeout would wait for a full one."""
        consumer = self._assignment.consumer
        messages: list[Message] = consumer.consume(BATCH, 0)
        if not messages:
            first = consumer.poll(self._wait_s())
            if first is not None:
                messages = [first, *consumer.consume(BATCH, 0)]
        if self._assignment.failure is not None:
            raise self._assignment.failure
        return messages

    def _wait_s(self) -> float:
        if self._assignment.is_restoring():
            return 0.0
        if self._since_s is None:
            return IDLE_WAIT_S
        due_s = self._since_s + self._settings.transaction_ms / 1000
        return min(IDLE_WAIT_S, max(0.0, due_s - time.monotonic()))

    def _is_commit_due(self, now_s: float) -> bool:
        if self._since_s is None:
            return False
        changed = sum(partition.join.changed() for partition in self._assignment.partitions.values())
        return (
            self._events >= self._settings.transaction_events
            or changed >= MOST_CHANGED
            or now_s - self._since_s >= self._settings.transaction_ms / 1000
        )

    def _commit_where_due(self, now_s: float, *, is_pressed: bool) -> None:
        """Commit where that is due; while much is to be read, join on until the broker has what the transaction wrote.

        One transaction is open at a time: where the next is due before, it waits.
        """
        is_due = self._is_commit_due(now_s)
        if self._transactions.is_open and (is_due or not is_pressed or self._transactions.is_delivered()):
            self._finish()
        if is_due:
            self._begin()
            if self._transactions.is_open and not is_pressed:
                self._finish()

    def _commit(self) -> None:
        """Commit all that has been joined. Raises TransactionError."""
        if self._transactions.is_open:
            self._finish()
        self._begin()
        if self._transactions.is_open:
            self._finish()

    def _begin(self) -> None:
        """Hand all that has been joined to a transaction over all partitions. Raises TransactionError."""
        started_s = time.monotonic()
        partitions = self._assignment.partitions
        works = [work for partition in partitions.values() if (work := partition.work()) is not None]
        self._events = 0
        self._since_s = None
        if works:
            self._writing = [partitions[work.partition] for work in works]
            self._begun_s = started_s
            self._transactions.begin(works, self._assignment.consumer)

    def _finish(self) -> None:
        """Make the open transaction count. Raises TransactionError."""
        if any(self._assignment.partitions.get(partition.number) is not partition for partition in self._writing):
            raise TransactionError(KafkaError(KafkaError.ILLEGAL_GENERATION, "partitions were lost on the way"))
        for partition, work in zip(self._writing, self._transactions.finish(), strict=True):
            partition.committed(work)
            metrics.count(work)
        metrics.TRANSACTION.observe(time.monotonic() - self._begun_s)
        self._failures.none()

    def _between(self, now_s: float) -> None:
        """What is due now and then."""
        partitions = self._assignment.partitions
        is_settled = self._since_s is None and not self._transactions.is_open
        if is_settled or any(partition.uncommitted() for partition in partitions.values()):
            self._watch.show(partitions, now_s)  # so a lag of 0 says that nothing is left to commit
        self._watch.check(now_s)
        self._garbage.turn(now_s)
        if now_s >= self._poll_s:
            self._poll_s = now_s + POLL_INTERVAL_S
            self._transactions.poll()
            self._items.poll()
