"""Crash as data: the joiner dies at every call to the broker, is started again, and nothing is lost or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onerec.kafka import clients
from onerec.settings import JoinerSettings, KafkaSettings, Settings, StoreSettings, StreamSettings
from schemas.records import ActionKind, Impression
from schemas.topics import id_key
from stream.joiner.items import AnyItem
from stream.joiner.service import Failures, Joiner
from stream.joiner.wiring import Wiring, names
from tests.stream.joiner.bus import Bus, Crash, Entry
from tests.stream.joiner.events import Event, action, impression, view

PARTITIONS = 1
JOINER = JoinerSettings(
    session_items=2,
    session_gap_ms=40,
    feedback_window_ms=15,
    history_items=3,
    allowed_lateness_ms=5,
    idle_close_s=1e6,
    transaction_events=4,
    transaction_ms=3_600_000,
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
        self._bus, self._wiring = bus, wiring

    def is_set(self) -> bool:
        inputs = [(topic, n) for topic in self._wiring.inputs for n in range(PARTITIONS)]
        return all(self._bus.read.get(part, -1) == len(self._bus.log(part)) for part in inputs)

    def ready(self) -> None:
        pass


class System:
    """A bus with a story on it, and joiners that run and die one after another."""

    def __init__(self, directory: Path, *, batch: int, events: list[Event] | None = None) -> None:
        self.directory = directory
        self.settings = Settings(
            kafka=KafkaSettings(partitions=PARTITIONS),
            store=StoreSettings(state_dir=directory),
            stream=StreamSettings(joiner=JOINER),
        )
        self.wiring = names(self.settings.kafka, "cluster", ["changelog", "histories"])
        self.bus = Bus(PARTITIONS, batch=batch)
        for event in story() if events is None else events:
            self.publish(event)

    def publish(self, event: Event) -> None:
        shown = isinstance(event, Impression)
        topic = self.wiring.inputs[0 if shown else 1]
        codec = self.wiring.impression_codec if shown else self.wiring.action_codec
        self.bus.log((topic, event.user_id % PARTITIONS)).append(
            _entry(id_key(event.user_id), codec.encode(event), event.time_ms)
        )

    def live(self, *, lose_memory: bool = True) -> None:
        """One process from its start to its end, or to its crash."""
        joiner = Joiner(self.settings, self.wiring, AnyItem(), Failures(self.settings.kafka, "0"))
        try:
            joiner.run(UntilRead(self.bus, self.wiring))  # type: ignore[arg-type]
        except Crash:
            self._crash(joiner, lose_memory=lose_memory)
            raise
        joiner.close()

    def live_through(self, crashes: list[int], *, lose_memory: bool = True) -> None:
        """Processes that die after so many calls each, then one that lives."""
        for calls in crashes:
            self.bus.crash_at = len(self.bus.steps) + calls
            try:
                self.live(lose_memory=lose_memory)
            except Crash:
                continue
            return
        self.bus.crash_at = None
        self.live()

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


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Makes systems; all clients of the process are on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> System:
        made[0] += 1
        new = System(tmp_path / f"system-{made[0]}", **{"batch": 5, **arguments})
        monkeypatch.setattr(clients, "producer", new.bus.producer)
        monkeypatch.setattr(clients, "consumer", new.bus.consumer)
        return new

    return make


def test_the_story_without_a_crash(system: Callable[..., System]) -> None:
    calm = system()
    calm.live()

    outcome = calm.outcome()

    pairs = [[10, 11], [12, 13], [14, 15], [20], [21], [22]]
    found = [(session.user_id, [item.item_id for item in session.items]) for session in outcome.sessions]
    assert found == [(user, items) for user in (1, 2) for items in pairs] + [(3, [10])]
    assert sorted(reason for _, _, reason in outcome.refused) == ["late", "late", "orphan", "orphan"]  # type: ignore[misc]
    assert {key: record.history_labels for key, record in outcome.histories.items()} == {
        b"1": bytes([2, 2, 2]),
        b"2": bytes([2, 2, 2]),
        b"3": bytes([2]),
    }


@pytest.mark.parametrize("lose_memory", [True, False], ids=["disk as of the last flush", "disk as of the crash"])
def test_a_crash_between_any_two_steps_changes_nothing(system: Callable[..., System], *, lose_memory: bool) -> None:
    calm = system()
    calm.live()
    wanted = calm.outcome()
    steps = calm.bus.steps
    assert steps.count("committed") >= 5

    for calls, step in enumerate(steps):
        if step == "produce" and steps[calls + 1] == "produce":
            continue  # one record more or less in a transaction that does not commit
        crashed = system()
        crashed.live_through([calls], lose_memory=lose_memory)
        assert crashed.outcome() == wanted, f"died at call {calls}: {step}"


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(crashes=st.lists(st.integers(0, 40), min_size=2, max_size=6), batch=st.integers(1, 9), lose=st.booleans())
def test_many_crashes_change_nothing(
    system: Callable[..., System], crashes: list[int], batch: int, *, lose: bool
) -> None:
    calm = system(batch=batch)
    calm.live()
    wanted = calm.outcome()

    crashed = system(batch=batch)
    crashed.live_through(crashes, lose_memory=lose)

    assert crashed.outcome() == wanted


def test_a_new_machine_restores_the_state_from_the_changelog(system: Callable[..., System]) -> None:
    calm = system()
    calm.live()
    wanted = calm.outcome()

    moved = system(batch=3)
    for calls in (14, 12, 16):
        moved.bus.crash_at = len(moved.bus.steps) + calls
        with pytest.raises(Crash):
            moved.live()
        shutil.rmtree(moved.directory)
    moved.bus.crash_at = None
    moved.live()

    assert moved.outcome() == wanted


def test_on_a_broker_that_serves_what_was_aborted_the_state_is_right_and_only_repetitions_are_added(
    system: Callable[..., System],
) -> None:
    calm = system()
    calm.live()
    wanted = calm.outcome()

    repeated = 0
    for calls in [calls for calls, step in enumerate(calm.bus.steps) if step == "offsets"]:
        crashed = system()
        crashed.bus.serves_aborted = True
        crashed.live_through([calls, 12, 9])

        outcome = crashed.outcome()
        once = {session.session_id: session for session in outcome.sessions}
        assert all(once[session.session_id] == session for session in outcome.sessions)
        assert sorted(once) == sorted(session.session_id for session in wanted.sessions)
        assert outcome.histories == wanted.histories
        repeated += len(outcome.sessions) - len(once)
    assert repeated > 0
