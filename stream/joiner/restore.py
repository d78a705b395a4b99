"""Bringing the state of newly assigned partitions back: local copy, then what the topics hold beyond it.

Two rules make it exact. A record counts only if the input offsets in its header are not beyond the committed ones:
a broker that serves what was aborted (the embedded one does) cannot make us believe it. And a partition is ready
only when its restored point equals the committed offsets: the state is then exactly as of the inputs' next records.
A local copy that does not lead there is filled again from the beginning, once.
Imported histories carry no header and always count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

from onerec.errors import CheckFailedError
from onerec.kafka.patience import PASSING
from onerec.kafka.trouble import explained
from onerec.kafka.watermarks import Bounds, Part, watermarks
from onerec.settings import Settings
from onerec.state.store import LocalStore
from onerec.state.tail import Raw, Tail
from stream.joiner.joining import HISTORY_PREFIX, USER_PREFIX
from stream.joiner.partition import POINT_KEY, Partition
from stream.joiner.state import Point
from stream.joiner.transaction import OFFSETS_HEADER, unpack_offsets
from stream.joiner.wiring import Wiring

LOG = logging.getLogger(__name__)
COMMITTED_TIMEOUT_S = 5.0
PATIENCE_S = 60.0
"""How long to ask for committed offsets while another joiner's transaction over them is unresolved."""
CHUNK = 5000
Offsets = tuple[int, int]


class Restoration:
    """Restores some partitions in slices, so that the group hears from us meanwhile: call `step` until it is done."""

    def __init__(self, numbers: Collection[int], consumer: Consumer, wiring: Wiring, settings: Settings) -> None:
        self.numbers = sorted(numbers)
        self.started_s = time.monotonic()
        self._consumer = consumer
        self._wiring = wiring
        self._settings = settings
        self._committed: dict[int, Offsets | None] | None = None
        self._stores: dict[int, LocalStore] = {}
        self._tail: Tail | None = None
        self._newest: dict[int, Offsets] = {}
        """By partition the input offsets of the newest record of the state, whether it counts or not."""
        self._whole: set[int] = set()
        """Partitions whose state is read from the beginning of its topics."""

    def step(self, timeout_s: float) -> list[Partition] | None:
        """Go on for about `timeout_s`; the partitions once all are restored, None before.

        Raises CheckFailedError where state and committed offsets do not fit, or the inputs have lost records.
        """
        if self._committed is None:
            self._committed = self._ask_committed()
        elif self._tail is None:
            self._begin(self._committed)
        else:
            self._apply(self._tail, self._tail.read(timeout_s), self._committed)
            if self._tail.done():
                self._tail.close()
                self._tail = None
                if not self._refill(self._committed):
                    return [self._finished(number, self._committed[number]) for number in self.numbers]
        return None

    def abandon(self) -> None:
        """The partitions are not ours any more, or we stop."""
        if self._tail is not None:
            self._tail.close()
        for store in self._stores.values():
            store.close()

    def _ask_committed(self) -> dict[int, Offsets | None] | None:
        """The group's offsets of both inputs; None to ask again."""
        wanted = [TopicPartition(topic, number) for number in self.numbers for topic in self._wiring.inputs]
        try:
            found = self._consumer.committed(wanted, timeout=COMMITTED_TIMEOUT_S)
            for one in found:
                if one.error is not None:
                    raise KafkaException(one.error)
        except KafkaException as error:
            patient = time.monotonic() - self.started_s < PATIENCE_S
            if error.args[0].code() in PASSING and patient:
                LOG.info("committed offsets are not settled yet: %s", error.args[0].str())
                return None
            raise explained(error, self._wiring.kafka, "committed offsets of group joiner") from error
        pairs = zip(found[::2], found[1::2], strict=True)
        return {
            impressions.partition: None
            if impressions.offset < 0 or actions.offset < 0
            else (impressions.offset, actions.offset)
            for impressions, actions in pairs
        }

    def _begin(self, committed: Mapping[int, Offsets | None]) -> None:
        inputs = self._bounds(self._wiring.inputs)
        for number in self.numbers:
            self._check_inputs(number, committed[number], inputs)
        state_topics = {"changelog": self._wiring.changelog, "histories": self._wiring.histories}
        ends = self._bounds(state_topics.values())
        starts: dict[Part, int] = {}
        for number in self.numbers:
            if number not in self._stores:
                self._stores[number] = LocalStore(self._directory(number), self._wiring.identity)
            store = self._stores[number]
            if any(not ends[topic, number][0] <= store.positions.get(name, ends[topic, number][0])
                   <= ends[topic, number][1] for name, topic in state_topics.items()):  # fmt: skip
                LOG.warning("local state of partition %d is not of this log; it is filled again", number)
                store.clear()
            if not store.positions:
                self._whole.add(number)
            for name, topic in state_topics.items():
                starts[topic, number] = store.positions.get(name, ends[topic, number][0])
        self._tail = Tail(self._wiring.kafka, starts, {part: high for part, (_, high) in ends.items()})

    def _refill(self, committed: Mapping[int, Offsets | None]) -> bool:
        """Whether some local copies do not lead to the committed offsets and are filled again from their topics.

        Whoever reads on while another joiner has gone on with a partition, before the group tells of it, has passed
        records over that count later.
        """
        outdated = [
            number for number in self.numbers if number not in self._whole and not self._fits(number, committed)
        ]
        for number in outdated:
            LOG.warning("local state of partition %d is not as of the committed offsets; it is filled again", number)
            self._stores[number].clear()
            self._newest.pop(number, None)
        if outdated:
            self._begin(committed)
        return bool(outdated)

    def _fits(self, number: int, committed: Mapping[int, Offsets | None]) -> bool:
        offsets = committed[number]
        return offsets is None or self._restored(number) == offsets

    def _restored(self, number: int) -> Offsets | None:
        """The input offsets that the state is as of."""
        packed = self._stores[number].get(POINT_KEY)
        return None if packed is None else Point.unpack(packed).next_offsets

    def _bounds(self, topics: Iterable[str]) -> dict[Part, Bounds]:
        """First offset and end, whatever open transactions there are: a committed reader waits for those."""
        parts = [(topic, number) for topic in topics for number in self.numbers]
        return watermarks(self._wiring.kafka, parts, isolation_level="read_uncommitted")

    def _directory(self, number: int) -> Path:
        joiner = self._settings.stream.joiner
        return self._settings.store.state_dir / f"joiner-{joiner.instance}" / f"partition-{number}"

    def _check_inputs(self, number: int, committed: Offsets | None, inputs: Mapping[Part, Bounds]) -> None:
        for topic, offset in zip(self._wiring.inputs, committed or (), strict=False):
            low, high = inputs[topic, number]
            if not low <= offset <= high:
                raise CheckFailedError(
                    f"The joiner stands at offset {offset} of {topic}[{number}], but the broker has {low} to {high}.",
                    "Records were deleted before they were joined, or the topic was made anew: reset the joiner's "
                    "group and delete the topic joiner-changelog to begin anew with what is there.",
                )

    def _apply(self, tail: Tail, records: Iterable[Raw], committed: Mapping[int, Offsets | None]) -> None:
        """Write what counts to the local copies, in one batch a partition and slice."""
        changes: dict[int, list[tuple[bytes, bytes | None]]] = {}
        for record in records:
            topic, number = record.part
            change = changes.setdefault(number, [])
            joined = _header(record)
            if joined is not None:
                self._newest[number] = joined
            if _counts(joined, committed[number]):
                change.append((self._local_key(topic, record.key or b""), record.value))
        for number, change in changes.items():
            positions = {
                "changelog": tail.positions[self._wiring.changelog, number],
                "histories": tail.positions[self._wiring.histories, number],
            }
            self._stores[number].write(change, positions)

    def _local_key(self, topic: str, key: bytes) -> bytes:
        if topic == self._wiring.histories:
            return HISTORY_PREFIX + key
        return POINT_KEY if key == POINT_KEY else USER_PREFIX + key

    def _finished(self, number: int, committed: Offsets | None) -> Partition:
        restored = self._restored(number)
        begin = committed if committed is not None else self._beginning(number)
        newest = self._newest.get(number, restored)
        # Before anything is joined the beginning is committed; without that, only its own record may be there.
        if committed is None and newest not in (None, begin):
            raise _unfitting(number, newest, committed)
        if committed is not None and restored != committed:
            raise _unfitting(number, restored, committed)
        return Partition(number, self._stores.pop(number), begin, self._wiring, self._settings.stream.joiner)

    def _beginning(self, number: int) -> Offsets:
        found = self._bounds(self._wiring.inputs)
        impressions, actions = (found[topic, number][0] for topic in self._wiring.inputs)
        return (impressions, actions)


def _header(record: Raw) -> Offsets | None:
    """The input offsets up to which the transaction that wrote a record has joined; None for an imported one."""
    packed = record.headers.get(OFFSETS_HEADER)
    return unpack_offsets(packed) if isinstance(packed, bytes) else None


def _counts(joined: Offsets | None, committed: Offsets | None) -> bool:
    """Whether the transaction that wrote a record is covered by the committed input offsets."""
    if joined is None:
        return True
    return committed is not None and joined[0] <= committed[0] and joined[1] <= committed[1]


def _unfitting(number: int, restored: Offsets | None, committed: Offsets | None) -> CheckFailedError:
    return CheckFailedError(
        f"The joiner's state of partition {number} is as of input offsets {restored}, but its group has committed "
        f"{committed}.",
        "The group was reset or has expired, or the changelog was deleted: reset the joiner's group and delete the "
        "topic joiner-changelog to join everything anew.",
    )
