"""What leaves the joiner leaves it here: one Kafka transaction, then the local copy.

The transaction holds the changes of state (joiner-changelog), the sessions, the histories, the dead letters and the
consumed offsets. A crash between any two steps leaves either all of it or nothing; what is left open is aborted by
the `init_transactions` of the successor. After any error the producer is never used again: its transaction may or
may not be committed, and only a new producer and a restored state know.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from onerec.errors import CheckFailedError
from onerec.kafka import clients
from onerec.kafka.delivery import Deliveries
from onerec.kafka.watchdog import comes_back
from onerec.kafka.watermarks import Part
from onerec.settings import KafkaSettings
from stream.joiner.wiring import Wiring
from stream.joiner.work import Record, Work

OFFSETS_HEADER = "joined"
"""On each record that state is restored from: the input offsets up to which it has joined."""
_OFFSETS = struct.Struct("<2q")
INIT_TIMEOUT_S = 30.0
COMMIT_TIMEOUT_S = 15.0
"""As long as the broker keeps a transaction open (transaction.timeout.ms): later it cannot succeed."""
STUCK_AFTER_S = COMMIT_TIMEOUT_S + 5.0
QUEUE_WAIT_S = 0.05
FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
"""Another process of our instance has come after us."""
Headers = list[tuple[str, str | bytes | None]]


def pack_offsets(next_offsets: tuple[int, int]) -> bytes:
    """Value of the header: next offset of impressions and of actions."""
    return _OFFSETS.pack(*next_offsets)


def unpack_offsets(packed: bytes) -> tuple[int, int]:
    """The offsets of a header. Raises CheckFailedError where it is not of this joiner."""
    try:
        impressions, actions = _OFFSETS.unpack(packed)
    except struct.error as error:
        raise CheckFailedError(
            f"A record that the joiner's state is restored from has the header {OFFSETS_HEADER!r} of {len(packed)} "
            f"bytes, {_OFFSETS.size} are right.",
            "See who else writes to histories and joiner-changelog: only the joiner sets this header.",
        ) from error
    return impressions, actions


def transactional_id(kafka: KafkaSettings, instance: str) -> str:
    """What the broker knows the producer of an instance by."""
    return f"{kafka.topic_prefix}{kafka.group_prefix}joiner-{instance}"


class TransactionError(Exception):
    """A transaction did not surely commit: discard producer and state, and begin anew from what is committed."""

    def __init__(self, cause: KafkaError) -> None:
        super().__init__(cause.str())
        self.cause = cause
        self.fenced = cause.code() in FENCED


def beneath(error: KafkaError) -> KafkaError:
    """What a consumer's fatal error stands for, where that is one of FENCED; else the error itself.

    A static member whose place in the group was taken is told so as `_FATAL`, with the reason as words alone.
    """
    if error.code() == KafkaError._FATAL:
        for code in FENCED:
            if KafkaError(code).str() in error.str():
                return KafkaError(code, error.str())
    return error


@dataclass(slots=True)
class _Open:
    """A transaction from its first record to its commit."""

    works: Sequence[Work]
    group: object
    """The group's metadata as it was when the work was taken."""
    deadline_s: float
    ends: dict[Part, int] = field(default_factory=dict)
    """Where the partitions end with it, as deliveries tell."""
    deliveries: Deliveries = field(default_factory=Deliveries)

    def left_s(self) -> float:
        """How long it may still take; the broker ends it about then."""
        return max(0.0, self.deadline_s - time.monotonic())

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Note where a record came to stand; that of a partition's last one is told last."""
        self.deliveries(error, message)
        topic, partition, offset, _ = clients.place(message)
        if error is None and offset is not None:
            self.ends[topic, partition] = offset + 1


class Transactions:
    """The transactional producer. One thread."""

    def __init__(self, wiring: Wiring, instance: str) -> None:
        """Fence every older producer of this instance and abort what it left open. Raises TransactionError."""
        self._wiring = wiring
        self._open: _Open | None = None
        self._producer = clients.producer(wiring.kafka, transactional_id=transactional_id(wiring.kafka, instance))
        try:
            self._producer.init_transactions(INIT_TIMEOUT_S)
        except KafkaException as error:
            raise TransactionError(error.args[0]) from error

    def begin(self, works: Sequence[Work], consumer: Consumer) -> None:
        """Hand the work of these partitions to the producer; `finish` makes it count. Raises TransactionError."""
        try:
            # A group that moves on from now on refuses the offsets.
            self._open = opened = _Open(works, consumer.consumer_group_metadata(), time.monotonic() + COMMIT_TIMEOUT_S)
            # 1. Everything is handed to the producer: state, histories, sessions, dead letters.
            self._producer.begin_transaction()
            for work in works:
                self._produce(work, opened)
        except KafkaException as error:
            raise TransactionError(error.args[0]) from error

    @property
    def is_open(self) -> bool:
        """Whether something was begun and is not finished."""
        return self._open is not None

    def is_delivered(self) -> bool:
        """Whether the broker has all records of what is open, so that `finish` need not wait; raises as `poll`."""
        self.poll()
        return len(self._producer) == 0

    def finish(self) -> Sequence[Work]:
        """Make what was begun count, whole or not at all; its work. Raises TransactionError."""
        opened, self._open = self._open, None
        assert opened is not None, "nothing was begun"
        try:
            # 2. All of it is on the broker, and we know where the topics of the state end.
            if self._producer.flush(opened.left_s()):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records were not delivered in time"))
            opened.deliveries.check()
            # 3. The consumed offsets join the transaction.
            with comes_back("send_offsets_to_transaction", STUCK_AFTER_S):
                self._producer.send_offsets_to_transaction(self._offsets(opened.works), opened.group, COMMIT_TIMEOUT_S)
            # 4. From here on all of it counts; before, nothing does.
            self._producer.commit_transaction(COMMIT_TIMEOUT_S)
        except KafkaException as error:
            raise TransactionError(error.args[0]) from error
        # 5. The local copy follows, with the places in the topics that it now stands for.
        for work in opened.works:
            work.store.write(work.local, self._positions(work.partition, opened.ends))
        return opened.works

    def poll(self) -> None:
        """Serve callbacks; what they tell comes out at the next commit. Raises TransactionError for a fatal error."""
        try:
            self._producer.poll(0)
        except KafkaException as error:
            raise TransactionError(error.args[0]) from error

    def discard(self) -> None:
        """Never use the producer again."""
        self._producer.purge(in_flight=True)

    def _produce(self, work: Work, opened: _Open) -> None:
        wiring, partition = self._wiring, work.partition
        joined: Headers = [(OFFSETS_HEADER, pack_offsets(work.next_offsets))]
        self._send(wiring.sessions, partition, work.sessions, opened)
        self._send(wiring.dead_letters, 0, work.dead_letters, opened)
        self._send(wiring.histories, partition, work.histories, opened, joined)
        self._send(wiring.changelog, partition, work.changelog, opened, joined)

    def _send(
        self, topic: str, partition: int, records: Sequence[Record], opened: _Open, headers: Headers | None = None
    ) -> None:
        """Hand them over with reports of the first, with which all begins that goes missing unseen, and of the last.

        A report costs half of what sending does.
        """
        produce, told = self._producer.produce, {0: opened.delivered, len(records) - 1: opened.delivered}
        for number, (key, value, time_ms) in enumerate(records):
            on_delivery = told.get(number)
            while True:
                try:
                    produce(topic, value, key, partition, on_delivery=on_delivery, timestamp=time_ms, headers=headers)
                except BufferError:
                    if not opened.left_s():
                        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the send queue stays full")) from None
                    self._producer.poll(QUEUE_WAIT_S)
                else:
                    break

    def _offsets(self, works: Sequence[Work]) -> list[TopicPartition]:
        return [
            TopicPartition(topic, work.partition, offset)
            for work in works
            for topic, offset in zip(self._wiring.inputs, work.next_offsets, strict=True)
        ]

    def _positions(self, partition: int, ends: dict[Part, int]) -> dict[str, int]:
        names = (("changelog", self._wiring.changelog), ("histories", self._wiring.histories))
        return {name: ends[topic, partition] for name, topic in names if (topic, partition) in ends}
