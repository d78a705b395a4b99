"""A Kafka in memory on which a process can die between any two things that it does.

It keeps Kafka's contract: uncommitted records stand in the log but a committed reader stops before them, the
successor of a transactional id ends what its predecessor left open, offsets count with the commit, and commit and
abort leave a marker that takes an offset. The clients on it are in bus_clients.py.

Everything that outlives the process is a step with a number: what clients do here, and the changes to files that
disk.py adds. At step `crash_at` the process dies before it happens, and from then on every step and every call
raises `Crash` again, so that no handler of the dying process tidies up what a dead one could not.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from confluent_kafka import KafkaError, KafkaException

from onerec.kafka import clients, layout
from onerec.settings import KafkaSettings
from schemas.topics import TOPICS

Part = tuple[str, int]
MARKER = "marker"
ALL = 10**9


class Crash(BaseException):
    """The process dies here. Nobody may catch it."""


class Fate(StrEnum):
    """What became of a commit whose answer never came."""

    DONE = "it was committed"
    DONE_LATER = "the coordinator commits it when the successor asks"
    NEVER = "it never reached the coordinator"


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

    def __init__(self, part: Part, offset: int | None, entry: Entry | None, error: KafkaError | None = None) -> None:
        self._part, self._offset, self._entry, self._error = part, offset, entry, error

    def topic(self) -> str:
        return self._part[0]

    def partition(self) -> int:
        return self._part[1]

    def offset(self) -> int | None:
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

    def latency(self) -> float:
        """Seconds that a delivered record took: here it is there at once."""
        return 0.0


@dataclass
class Transaction:
    """What a transactional producer has open."""

    entries: list[tuple[Part, Entry]] = field(default_factory=list)
    offsets: dict[Part, int] = field(default_factory=dict)
    ends_as: str = "aborted"
    """What the successor's `init_transactions` makes of it."""

    def end(self, bus: Bus, state: str) -> None:
        for _, entry in self.entries:
            entry.state = state
        for part in {part for part, _ in self.entries}:
            bus.log(part).append(Entry(None, None, state=MARKER))
        if state == "committed":
            bus.offsets.update(self.offsets)


@dataclass
class Bus:
    """The broker. One group reads from it."""

    batch: int = 5
    """Messages that one call to a consumer gives at most."""
    keeps_in_flight: int = 0
    """So many of a plain producer's newest records are not on the broker before it is flushed."""
    serves_aborted: bool = False
    """As the embedded broker does: a committed reader gets aborted records too."""
    refuses: set[str] = field(default_factory=set)
    """Topics that take nothing of a plain producer: its delivery reports say so."""
    logs: dict[Part, list[Entry]] = field(default_factory=dict)
    offsets: dict[Part, int] = field(default_factory=dict)
    """What the group has committed."""
    read: dict[Part, int] = field(default_factory=dict)
    """How far the newest member of the group has read."""
    open: dict[str, Transaction] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    crash_at: int | None = None
    dead: bool = False
    before_step: Callable[[str], None] | None = None
    """Told of each step before it happens: a picture taken now is what a crash would leave."""
    timeouts: dict[int, Fate] = field(default_factory=dict)
    """By step: a call of a transactional producer that is not answered in time."""
    unconfirmed: set[int] = field(default_factory=set)
    """Steps at which a transactional producer loses a record and with it those before it in the same partition of the
    transaction: their delivery reports have neither error nor offset."""

    def make_topics(self, kafka: KafkaSettings) -> None:
        for topic in TOPICS:
            for number in range(layout.partitions(kafka, topic)):
                self.log((clients.topic_name(kafka, topic), number))

    def log(self, part: Part) -> list[Entry]:
        return self.logs.setdefault(part, [])

    def part_of(self, topic: str, key: bytes | None) -> Part:
        """Where a record goes that names no partition."""
        partitions = sum(name == topic for name, _ in self.logs)
        return (topic, zlib.crc32(key or b"") % partitions)

    def step(self, name: str) -> None:
        """Something that outlives the process is about to happen; or the process dies before it."""
        self.alive()
        if self.before_step is not None:
            self.before_step(name)
        self.steps.append(name)
        if self.crash_at is not None and len(self.steps) > self.crash_at:
            self.dead = True
            raise Crash(f"step {self.crash_at}: {name}")

    def alive(self) -> None:
        """Nothing can be done by the dead."""
        if self.dead:
            raise Crash("dead")

    def timed_out(self) -> Fate | None:
        """What becomes of the call of this step, where its answer does not come."""
        return self.timeouts.get(len(self.steps) - 1)

    @contextmanager
    def life(self, crash_after: int | None = None) -> Iterator[None]:
        """One process, which dies after so many steps."""
        self.dead = False
        self.crash_at = None if crash_after is None else len(self.steps) + crash_after
        try:
            yield
        finally:
            self.dead, self.crash_at = False, None

    def survivor(self) -> Bus:
        """The broker as it is now, for a process that comes after."""
        told, self.before_step = self.before_step, None
        twin = copy.deepcopy(self)
        self.before_step = told
        twin.steps = []
        return twin

    def compact(self, topic: str) -> None:
        """Keep the newest record of each key, as a broker may do at any time. Offsets stay as they are."""
        for part in [part for part in self.logs if part[0] == topic]:
            newest = {entry.key: entry for entry in self.logs[part]}
            for entry in self.logs[part]:
                if newest[entry.key] is not entry:
                    entry.state = "compacted"

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


def no_answer() -> KafkaException:
    """What librdkafka raises for a call whose time is over."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer in time"))
