"""Consumers, producers and the admin client of a bus in memory; `connect` puts all of the process on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from onerec.kafka import admin, clients
from onerec.settings import KafkaSettings
from tests.recovery.bus import Bus, Entry, Fate, Message, Part, Transaction, no_answer

Report = Callable[..., None]


def connect(monkeypatch: pytest.MonkeyPatch, bus: Bus) -> None:
    """Every client that this process makes from now on is one of `bus`."""

    def consumer(_kafka: KafkaSettings, **properties: Any) -> Consumer:
        return Consumer(bus, **properties)

    def producer(_kafka: KafkaSettings, *, transactional_id: str | None = None, **_: Any) -> Any:
        return Producer(bus) if transactional_id is None else TransactionalProducer(bus, transactional_id)

    monkeypatch.setattr(clients, "consumer", consumer)
    monkeypatch.setattr(clients, "producer", producer)
    monkeypatch.setattr(admin, "WatchedAdmin", lambda _kafka: Client(bus))


class Trouble:
    """No trouble."""

    def check(self, *_: object) -> None:
        pass

    def raise_denied(self) -> None:
        pass

    def seen_alive(self) -> None:
        pass


class Client:
    """What all of them can do."""

    def __init__(self, bus: Bus) -> None:
        self.trouble = Trouble()
        self._bus = bus

    def list_topics(self, _topic: str | None = None, timeout: float = -1) -> Any:
        self._bus.alive()
        topics: dict[str, Any] = {}
        for name, number in sorted(self._bus.logs):
            topics.setdefault(name, SimpleNamespace(partitions={})).partitions[number] = None
        return SimpleNamespace(cluster_id="cluster", topics=topics)

    def poll(self, _timeout_s: float = -1) -> object:
        return None


class Producer(Client):
    """A plain producer: what it was given comes to the broker in order, at the latest when it is flushed."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self._in_flight: deque[tuple[Part, Entry, Report | None]] = deque()
        self._reports: list[tuple[Report, KafkaError | None, Message]] = []

    def produce(
        self, topic: str, value: bytes, key: bytes | None = None, *,
        on_delivery: Report | None = None, timestamp: int = 0, partition: int | None = None,
    ) -> None:  # fmt: skip
        self._bus.alive()
        part = self._bus.part_of(topic, key) if partition is None else (topic, partition)
        self._in_flight.append((part, Entry(key, value, timestamp), on_delivery))

    def poll(self, _timeout_s: float = -1) -> object:
        self._deliver(self._bus.keeps_in_flight)
        return None

    def flush(self, _timeout_s: float = -1) -> int:
        self._deliver(0)
        return 0

    def _deliver(self, keep: int) -> None:
        self._bus.alive()
        while len(self._in_flight) > keep:
            part, entry, report = self._in_flight[0]
            self._bus.step(f"deliver to {part[0]}")
            self._in_flight.popleft()
            error = KafkaError(KafkaError.NOT_ENOUGH_REPLICAS) if part[0] in self._bus.refuses else None
            if error is None:
                self._bus.log(part).append(entry)
            if report is not None:
                self._reports.append((report, error, Message(part, len(self._bus.log(part)) - 1, entry)))
        while self._reports:
            told, error, message = self._reports.pop(0)
            told(error, message)


class TransactionalProducer(Client):
    """A transactional producer."""

    def __init__(self, bus: Bus, transactional_id: str) -> None:
        super().__init__(bus)
        self._id = transactional_id
        self._reports: list[tuple[Report, Message]] = []

    def init_transactions(self, _timeout_s: float) -> None:
        self._bus.step("init")
        if self._bus.timed_out() is not None:
            raise no_answer()
        left = self._bus.open.pop(self._id, None)
        if left is not None:
            left.end(self._bus, left.ends_as)

    def begin_transaction(self) -> None:
        self._bus.step("begin")
        self._bus.open[self._id] = Transaction()

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int | None = None, *,
        on_delivery: Report | None = None, timestamp: int = 0, headers: list[tuple[str, bytes]] | None = None,
    ) -> None:  # fmt: skip
        self._bus.step("produce")
        part = self._bus.part_of(topic, key) if partition is None else (topic, partition)
        entry, opened = Entry(key, value, timestamp, headers, state="open"), self._bus.open[self._id]
        self._bus.log(part).append(entry)
        opened.entries.append((part, entry))
        if on_delivery is not None:
            self._reports.append((on_delivery, Message(part, len(self._bus.log(part)) - 1, entry)))
        if len(self._bus.steps) - 1 in self._bus.unconfirmed:
            self._lose(part, opened)

    def _lose(self, part: Part, opened: Transaction) -> None:
        lost = [entry for where, entry in opened.entries if where == part]
        opened.entries = [(where, entry) for where, entry in opened.entries if where != part]
        del self._bus.log(part)[-len(lost) :]
        self._reports = [
            (report, Message(part, None, None) if (message.topic(), message.partition()) == part else message)
            for report, message in self._reports
        ]

    def flush(self, _timeout_s: float) -> int:
        self._bus.step("flush")
        if self._bus.timed_out() is not None:
            return 1
        for report, message in self._reports:
            report(None, message)
        self._reports.clear()
        return 0

    def __len__(self) -> int:
        """What is not known to be delivered: it is with the flush."""
        return len(self._reports)

    def send_offsets_to_transaction(self, offsets: Iterable[TopicPartition], _group: object, _timeout_s: float) -> None:
        self._bus.step("offsets")
        if self._bus.timed_out() is not None:
            raise no_answer()
        self._bus.open[self._id].offsets.update({(o.topic, o.partition): o.offset for o in offsets})

    def commit_transaction(self, _timeout_s: float) -> None:
        self._bus.step("commit")
        fate = self._bus.timed_out()
        if fate in (None, Fate.DONE):
            self._bus.open.pop(self._id).end(self._bus, "committed")
        elif fate is Fate.DONE_LATER:
            self._bus.open[self._id].ends_as = "committed"
        if fate is not None:
            raise no_answer()
        self._bus.step("committed")

    def purge(self, *, in_flight: bool) -> None:
        pass


class Consumer(Client):
    """Reads by group or by assignment."""

    def __init__(
        self, bus: Bus, *, isolation_level: str = "read_committed", enable_partition_eof: bool = False, **_: Any
    ) -> None:
        super().__init__(bus)
        self._committed, self._tells_end = isolation_level == "read_committed", enable_partition_eof
        self._positions: dict[Part, int] = {}
        self._told_end: dict[Part, int] = {}
        self._paused: set[Part] = set()
        self._joining: list[str] = []
        self._on_assign: Report | None = None
        self._on_revoke: Report | None = None
        self._on_lost: Report | None = None

    def subscribe(
        self, topics: list[str], *, on_assign: Report, on_revoke: Report | None = None,
        on_lost: Report | None = None, **_: Any,
    ) -> None:  # fmt: skip
        self._joining, self._on_assign, self._on_revoke, self._on_lost = topics, on_assign, on_revoke, on_lost
        self._bus.read = self._positions

    def lose_place(self) -> None:
        """The group has given all partitions away, and gives them back with the next read."""
        assert self._on_lost is not None
        self._on_lost(self, [TopicPartition(*part) for part in self._positions])
        self._joining = sorted({topic for topic, _ in self._positions})
        self._positions.clear()
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

    def position(self, parts: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(p.topic, p.partition, self._positions[p.topic, p.partition]) for p in parts]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self._bus.step("commit offsets")
        self._bus.offsets.update({(part.topic, part.partition): part.offset for part in offsets})

    def committed(self, parts: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        offsets = self._bus.offsets
        return [TopicPartition(p.topic, p.partition, offsets.get((p.topic, p.partition), -1001)) for p in parts]

    def get_watermark_offsets(
        self, part: TopicPartition, *, timeout: float = 0.0, cached: bool = False
    ) -> tuple[int, int]:
        return (0, self._end((part.topic, part.partition)))

    def consumer_group_metadata(self) -> object:
        return object()

    def poll(self, timeout_s: float = -1) -> Message | None:
        found = self.consume(1, timeout_s)
        return found[0] if found else None

    def consume(self, most: int, _timeout_s: float) -> list[Message]:
        self._bus.alive()
        if self._joining:
            self._join()
        found: list[Message] = []
        for part in self._positions:
            if part not in self._paused and len(found) < min(most, self._bus.batch):
                found += self._read(part, min(most, self._bus.batch) - len(found))
        if self._on_assign is not None and any(message.error() is None for message in found):
            self._bus.step("read")
        return found

    def close(self) -> None:
        """Leave the group, as a living process does."""
        if self._on_revoke is not None and not self._bus.dead:
            self._on_revoke(self, [TopicPartition(*part) for part in self._positions])

    def _join(self) -> None:
        """The group gives all partitions to its newest member."""
        assert self._on_assign is not None
        parts = sorted(part for part in self._bus.logs if part[0] in self._joining)
        self._joining = []
        self._on_assign(self, [TopicPartition(*part) for part in parts])
        for part in parts:
            self._positions.setdefault(part, self._bus.offsets.get(part, 0))

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
        if self._tells_end and self._positions[part] == end and len(found) < most and self._told_end.get(part) != end:
            self._told_end[part] = end
            found.append(Message(part, end, None, KafkaError(KafkaError._PARTITION_EOF)))
        return found
