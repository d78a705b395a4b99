"""A Kafka in memory, as far as the joiner uses it, on which a process can die at any call.

It keeps Kafka's contract: uncommitted records stand in the log but a committed reader stops before them, the
successor of a transactional id aborts what its predecessor left open, offsets count with the commit, and commit
and abort leave a marker that takes an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from onerec.settings import KafkaSettings

Part = tuple[str, int]
MARKER = "marker"


class Crash(BaseException):
    """The process dies here. Nobody may catch it."""


@dataclass(eq=False)
class Entry:
    """One offset of a partition."""

    key: bytes | None
    value: bytes | None
    time_ms: int = 0
    headers: list[tuple[str, bytes]] | None = None
    state: str = "committed"


class Message:
    """What a consumer gets."""

    def __init__(self, part: Part, offset: int, entry: Entry | None, error: KafkaError | None = None) -> None:
        self._part, self._offset, self._entry, self._error = part, offset, entry, error

    def topic(self) -> str:
        return self._part[0]

    def partition(self) -> int:
        return self._part[1]

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def key(self) -> bytes | None:
        return self._entry.key if self._entry else None

    def value(self) -> bytes | None:
        return self._entry.value if self._entry else None

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._entry.headers if self._entry else None

    def timestamp(self) -> tuple[int, int]:
        return (1, self._entry.time_ms if self._entry else -1)


@dataclass
class Bus:
    """The broker. `steps` counts the calls of transactional producers; at `crash_at` the process dies."""

    partitions: int
    batch: int = 5
    serves_aborted: bool = False
    """As the embedded broker does: a committed reader gets aborted records too."""
    logs: dict[Part, list[Entry]] = field(default_factory=dict)
    offsets: dict[Part, int] = field(default_factory=dict)
    read: dict[Part, int] = field(default_factory=dict)
    """How far the newest member of the group has read."""
    open: dict[str, Transaction] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    crash_at: int | None = None

    def log(self, part: Part) -> list[Entry]:
        return self.logs.setdefault(part, [])

    def step(self, name: str) -> None:
        self.steps.append(name)
        if self.crash_at is not None and len(self.steps) > self.crash_at:
            raise Crash(f"step {self.crash_at}: {name}")

    def committed(self, topic: str) -> list[Entry]:
        """All that a committed reader sees, by partition."""
        parts = sorted(part for part in self.logs if part[0] == topic)
        return [entry for part in parts for entry in self.logs[part] if self.visible(entry)]

    def visible(self, entry: Entry) -> bool:
        """Whether a committed reader gets it."""
        return entry.state == "committed" or (self.serves_aborted and entry.state == "aborted")

    def stable_end(self, part: Part) -> int:
        """Where a committed reader stops."""
        log = self.log(part)
        return next((offset for offset, entry in enumerate(log) if entry.state == "open"), len(log))

    def producer(self, _kafka: KafkaSettings, *, transactional_id: str | None = None, **_: Any) -> Producer:
        assert transactional_id is not None
        return Producer(self, transactional_id)

    def consumer(self, _kafka: KafkaSettings, *, isolation_level: str = "read_committed", **_: Any) -> Consumer:
        return Consumer(self, committed=isolation_level == "read_committed")


@dataclass
class Transaction:
    entries: list[tuple[Part, Entry]] = field(default_factory=list)
    offsets: dict[Part, int] = field(default_factory=dict)

    def end(self, bus: Bus, state: str) -> None:
        for _, entry in self.entries:
            entry.state = state
        for part in {part for part, _ in self.entries}:
            bus.log(part).append(Entry(None, None, state=MARKER))
        if state == "committed":
            bus.offsets.update(self.offsets)


class Producer:
    """A transactional producer."""

    def __init__(self, bus: Bus, transactional_id: str) -> None:
        self._bus, self._id = bus, transactional_id
        self._reports: list[tuple[Callable[..., None], Message]] = []

    def init_transactions(self, _timeout_s: float) -> None:
        left = self._bus.open.pop(self._id, None)
        if left is not None:
            left.end(self._bus, "aborted")

    def begin_transaction(self) -> None:
        self._bus.step("begin")
        self._bus.open[self._id] = Transaction()

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, *,
        on_delivery: Callable[..., None] | None, timestamp: int, headers: list[tuple[str, bytes]] | None,
    ) -> None:  # fmt: skip
        self._bus.step("produce")
        part = (topic, partition)
        entry = Entry(key, value, timestamp, headers, state="open")
        self._bus.log(part).append(entry)
        self._bus.open[self._id].entries.append((part, entry))
        if on_delivery is not None:
            self._reports.append((on_delivery, Message(part, len(self._bus.log(part)) - 1, entry)))

    def flush(self, _timeout_s: float) -> int:
        self._bus.step("flush")
        for report, message in self._reports:
            report(None, message)
        self._reports.clear()
        return 0

    def send_offsets_to_transaction(self, offsets: Iterable[TopicPartition], _group: object, _timeout_s: float) -> None:
        self._bus.step("offsets")
        self._bus.open[self._id].offsets.update({(o.topic, o.partition): o.offset for o in offsets})

    def commit_transaction(self, _timeout_s: float) -> None:
        self._bus.step("commit")
        self._bus.open.pop(self._id).end(self._bus, "committed")
        self._bus.step("committed")

    def poll(self, _timeout_s: float) -> int:
        return 0

    def purge(self, *, in_flight: bool) -> None:
        pass


class Trouble:
    """No trouble."""

    def check(self, *_: object) -> None:
        pass

    def raise_denied(self) -> None:
        pass


class Consumer:
    """Reads by group or by assignment."""

    def __init__(self, bus: Bus, *, committed: bool) -> None:
        self.trouble = Trouble()
        self._bus, self._committed = bus, committed
        self._positions: dict[Part, int] = {}
        self._told_end: dict[Part, int] = {}
        self._paused: set[Part] = set()
        self._joining: tuple[list[str], Callable[..., None]] | None = None

    def subscribe(self, topics: list[str], *, on_assign: Callable[..., None], **_: Any) -> None:
        self._joining = (topics, on_assign)
        self._bus.read = self._positions

    def assign(self, parts: Iterable[TopicPartition]) -> None:
        for part in parts:
            self._positions[part.topic, part.partition] = 0 if part.offset == OFFSET_BEGINNING else part.offset

    def pause(self, parts: Iterable[TopicPartition]) -> None:
        self._paused |= {(part.topic, part.partition) for part in parts}

    def resume(self, parts: Iterable[TopicPartition]) -> None:
        self._paused -= {(part.topic, part.partition) for part in parts}

    def seek(self, part: TopicPartition) -> None:
        self._positions[part.topic, part.partition] = part.offset

    def committed(self, parts: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        offsets = self._bus.offsets
        return [TopicPartition(p.topic, p.partition, offsets.get((p.topic, p.partition), -1001)) for p in parts]

    def get_watermark_offsets(
        self, part: TopicPartition, *, timeout: float = 0.0, cached: bool = False
    ) -> tuple[int, int]:
        return (0, self._end((part.topic, part.partition)))

    def consumer_group_metadata(self) -> object:
        return object()

    def poll(self, timeout_s: float) -> Message | None:
        found = self.consume(1, timeout_s)
        return found[0] if found else None

    def consume(self, most: int, _timeout_s: float) -> list[Message]:
        if self._joining is not None:
            topics, on_assign = self._joining
            self._joining = None
            on_assign(self, [TopicPartition(topic, n) for topic in topics for n in range(self._bus.partitions)])
        found: list[Message] = []
        for part in self._positions:
            if part not in self._paused and len(found) < min(most, self._bus.batch):
                found += self._read(part, min(most, self._bus.batch) - len(found))
        return found

    def list_topics(self, _topic: str, *, timeout: float) -> Any:
        return SimpleNamespace(cluster_id="cluster")

    def close(self) -> None:
        pass

    def _end(self, part: Part) -> int:
        return self._bus.stable_end(part) if self._committed else len(self._bus.log(part))

    def _read(self, part: Part, most: int) -> list[Message]:
        found: list[Message] = []
        end = self._end(part)
        while self._positions[part] < end and len(found) < most:
            offset = self._positions[part]
            entry = self._bus.log(part)[offset]
            self._positions[part] += 1
            if self._bus.visible(entry) or (entry.state in ("open", "aborted") and not self._committed):
                found.append(Message(part, offset, entry))
        if self._positions[part] == end and len(found) < most and self._told_end.get(part) != end:
            self._told_end[part] = end
            found.append(Message(part, end, None, KafkaError(KafkaError._PARTITION_EOF)))
        return found
