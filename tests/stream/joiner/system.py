"""A story on a bus in memory, and joiners that live and die on it."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onerec.settings import JoinerSettings, KafkaSettings, Settings, StoreSettings, StreamSettings
from schemas.records import ActionKind, Impression
from schemas.topics import id_key
from stream.joiner.items import AnyItem
from stream.joiner.service import Failures, Joiner
from stream.joiner.wiring import Wiring, names
from tests.recovery.bus import Bus, Crash, Entry
from tests.stream.joiner.events import Event, action, impression, view

JOINER = JoinerSettings(
    session_items=2,
    session_gap_ms=40,
    feedback_window_ms=15,
    history_items=3,
    allowed_lateness_ms=5,
    idle_close_s=1e6,
    transaction_events=4,
    transaction_ms=3_600_000,
    known_items_only=False,
)
LAST_MS = 10_000


def story() -> list[Event]:
    """Full and incomplete sessions, orphans, late and early actions of two users; a third who soon leaves."""
    events: list[Event] = []
    for user in (1, 2):
        for number in range(6):
            at = 30 * number + user
            events += [
                impression(10 + number, at, user=user, request=number),
                view(10 + number, at + 4, 20_000, user=user, request=number),
            ]
        events += [
            action(11, 50, ActionKind.SHARE, user=user, request=1),
            action(99, 60, user=user),
            action(15, 148 + user, user=user, request=5),
        ]
        events += [impression(7, LAST_MS, user=user, request=77), action(8, LAST_MS, user=user, request=78)]
        for number in range(3):  # time passes; user 3 has nothing open from here on
            at = 1000 * (1 + number)
            events += [
                impression(20 + number, at, user=user, request=20 + number),
                action(20 + number, at, user=user, request=20 + number),
            ]
    events += [impression(10, 35, user=3, request=1), action(10, 36, user=3, request=1)]
    return sorted(events, key=lambda event: event.time_ms)


@dataclass
class Outcome:
    sessions: list[Any]
    histories: dict[bytes | None, Any]
    refused: list[tuple[int, str]]
    offsets: dict[tuple[str, int], int]


class UntilRead:
    """Asks the joiner to stop once it has read all input; it commits before it ends."""

    def __init__(self, bus: Bus, wiring: Wiring) -> None:
        self._bus = bus
        self._inputs = [part for part in bus.logs if part[0] in wiring.inputs]

    def is_set(self) -> bool:
        return all(self._bus.read.get(part, -1) == len(self._bus.log(part)) for part in self._inputs)

    def wait(self, _timeout_s: float) -> bool:
        return False

    def ready(self) -> None:
        pass


class System:
    """A bus with a story on it, and joiners that run and die one after another."""

    def __init__(
        self,
        directory: Path,
        *,
        batch: int,
        partitions: int = 1,
        events: list[Event] | None = None,
        joins: tuple[bool, ...] = (True,),
    ) -> None:
        """`joins`: whether each life after the other has the compiled join, where it is built; over and over."""
        self.directory = directory
        self.partitions = partitions
        self.settings = Settings(
            kafka=KafkaSettings(partitions=partitions),
            store=StoreSettings(state_dir=directory),
            stream=StreamSettings(joiner=JOINER),
        )
        self.wiring = names(self.settings.kafka, "cluster", ["changelog", "histories"])
        self.bus = Bus(batch=batch)
        self._joins = itertools.cycle(joins)
        self.bus.make_topics(self.settings.kafka)
        for event in story() if events is None else events:
            self.publish(event)

    def publish(self, event: Event) -> None:
        shown = isinstance(event, Impression)
        topic = self.wiring.inputs[0 if shown else 1]
        codec = self.wiring.impression_codec if shown else self.wiring.action_codec
        self.bus.log((topic, event.user_id % self.partitions)).append(
            _entry(id_key(event.user_id), codec.encode(event), event.time_ms)
        )

    def live(self, crash_after: int | None = None, *, lose_memory: bool = True) -> None:
        """One process from its start to its end, or to its crash."""
        with self.bus.life(crash_after):
            joiner = Joiner(self._settings_of_life(), self.wiring, AnyItem(), Failures(self.settings.kafka, "0"))
            try:
                joiner.run(UntilRead(self.bus, self.wiring))  # type: ignore[arg-type]
            except Crash:
                self._crash(joiner, lose_memory=lose_memory)
                raise
            joiner.close()

    def _settings_of_life(self) -> Settings:
        joiner = self.settings.stream.joiner.model_copy(update={"compiled": next(self._joins)})
        return self.settings.model_copy(update={"stream": StreamSettings(joiner=joiner)})

    def live_through(self, crashes: list[int], *, lose_memory: bool = True) -> None:
        """Processes that die after so many steps each, then one that lives."""
        for calls in crashes:
            try:
                self.live(calls, lose_memory=lose_memory)
            except Crash:
                continue
            return
        self.live()

    def is_committed(self) -> bool:
        """Whether the group has committed all input."""
        inputs = [part for part in self.bus.logs if part[0] in self.wiring.inputs]
        return all(self.bus.offsets.get(part, 0) == len(self.bus.log(part)) for part in inputs)

    def outcome(self) -> Outcome:
        wiring, bus = self.wiring, self.bus
        sessions = [wiring.session_codec.decode(entry.value) for entry in bus.committed(wiring.sessions)]
        letters = [wiring.dead_letter_codec.decode(entry.value) for entry in bus.committed(wiring.dead_letters)]
        return Outcome(
            sorted(sessions, key=lambda session: (session.user_id, session.start_ms)),
            {entry.key: wiring.history_codec.decode(entry.value) for entry in bus.committed(wiring.histories)},
            sorted((letter.partition, letter.offset, letter.reason) for letter in letters),  # type: ignore[misc]
            dict(bus.offsets),
        )

    def _crash(self, joiner: Joiner, *, lose_memory: bool) -> None:
        """What was in memory is gone, the local state is as the disk has it."""
        left = self.directory.with_name(self.directory.name + "-left")
        if lose_memory and self.directory.exists():
            shutil.copytree(self.directory, left, dirs_exist_ok=True)
        joiner.close()
        if lose_memory and left.exists():
            shutil.rmtree(self.directory)
            left.rename(self.directory)


def _entry(key: bytes, value: bytes, time_ms: int) -> Entry:
    return Entry(key, value, time_ms)
