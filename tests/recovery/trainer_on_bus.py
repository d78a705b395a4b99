"""A small stream on a bus in memory, and trainers that live and die on it."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.weights import BOUND
from onerec.kafka import layout
from onerec.settings import Settings, load_settings
from onerec.weights.record import record_of
from onerec.weights.store import WeightsStore
from onerec.weights.tensors import digest
from schemas.packed import pack_longs
from schemas.records import History, JournalEntry, JournalKind
from schemas.topics import (
    HISTORIES,
    ITEM_TOKENS,
    MODEL_VERSIONS,
    PREFERENCES,
    SESSIONS,
    TRAINER_JOURNAL,
    id_key,
)
from tests.recovery import disk
from tests.recovery.bus import ALL, Bus, Crash
from tests.recovery.bus_clients import connect
from tests.recovery.picture import Picture, pictures
from tests.recovery.topics import ends, publish, records, refused
from tests.trainer import toy
from trainer import loop, replay
from trainer import publish as publishing
from trainer.loop import Trainer
from trainer.publish import cast
from trainer.service import start
from trainer.state import TrainState
from trainer.step import StepResult, apply_step

QUICK: dict[str, Any] = {
    "batch": 4,
    "preference_batch": 1,
    "batch_wait_ms": 0,
    "warmup_steps": 0,
    "publish_interval_s": 2.0,  # the clock of these tests ticks with the steps
    "checkpoint_interval_s": 3.0,
    "keep_checkpoints": 1,
    "full_every": 2,
    "seed": {"samples": 8, "batch": 8, "settle_s": 0.0, "wait_s": 0.0, "threads": 1},
}


@dataclass
class Outcome:
    """What a user of the trainer can see in the end."""

    state: str
    steps: list[tuple[int, tuple[Any, ...], int, str | None]]
    """Step, ranges, seed and refusal of what the journal says was learned."""
    refused: set[tuple[str, int, int, str]]


class TrainerSystem:
    """A bus with sessions and pairs on it, good and bad, and trainers that run and die one after another."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        keeps_in_flight: int = 0,
        patience_s: float = 30.0,
        left: Picture | None = None,
    ) -> None:
        """A fresh one, or what an earlier one's crash has left. `patience_s` with a broker that does not answer."""
        self.folder = folder
        self.settings: Settings = load_settings(
            kafka={"partitions": 2, "broker_patience_s": patience_s},
            store={"uri": str(folder / "store"), "state_dir": str(folder / "state"), "keep_versions": 2},
            model={"preset": "tiny"},
            trainer=QUICK,
        )
        self.kafka = self.settings.kafka
        self.trainer: Trainer | None = None
        self.digests: defaultdict[int, set[str]] = defaultdict(set)
        """By step, of the weights in every life that came there."""
        if left is None:
            self.bus = Bus(batch=ALL, keeps_in_flight=keeps_in_flight)
            self.bus.make_topics(self.kafka)
            self._story()
            folder.mkdir(parents=True)
        else:
            self.bus = left.bus
            left.folder.rename(folder)
        connect(monkeypatch, self.bus)
        disk.watch(monkeypatch, self.bus, folder)
        clock = SimpleNamespace(monotonic=self._steps, time=time.time, time_ns=time.time_ns)
        monkeypatch.setattr(loop, "time", clock)
        monkeypatch.setattr(publishing, "time", clock)
        monkeypatch.setattr(loop, "apply_step", self._apply_step)
        monkeypatch.setattr(replay, "apply_step", self._apply_step)

    def live(self, crash_after: int | None = None) -> None:
        """One process from its start until all is learned, or to its crash."""
        self.trainer = None
        with self.bus.life(crash_after):
            self.trainer = start(self.settings, self)  # type: ignore[arg-type]
            assert self.trainer is not None
            self._note(self.trainer.state)
            self.trainer.run(self)  # type: ignore[arg-type]

    def pictures(self) -> list[Picture]:
        """Live, and tell what a crash before each step would have left."""
        return pictures(self.bus, self.folder, self.live)

    def live_through(self, crashes: list[int]) -> None:
        """Processes that die after so many steps each, then one that lives."""
        for crash in crashes:
            try:
                self.live(crash)
            except Crash:
                continue
            return
        self.live()

    def is_set(self) -> bool:
        """As `Stop`: whether everything has been learned from."""
        if self.trainer is None:
            return False
        offsets = self.trainer.state.offsets
        topics = (SESSIONS, PREFERENCES)
        return all(offsets[t.name, n] == end for t in topics for n, end in ends(self.bus, self.kafka, t).items())

    def wait(self, _timeout_s: float) -> bool:
        """As `Stop`."""
        return False

    def outcome(self) -> Outcome:
        assert self.trainer is not None
        journal = valid(records(self.bus, self.kafka, TRAINER_JOURNAL))
        return Outcome(
            digest(self.trainer.state.tensors()),
            [(e.step, e.ranges, e.seed, e.refused) for e in journal if e.kind is JournalKind.STEP],
            refused(self.bus, self.kafka),
        )

    def check_versions(self) -> None:
        """Every version is announced once, journalled, whole in the store, and its weights are those of its step."""
        versions = records(self.bus, self.kafka, MODEL_VERSIONS)
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        published = {
            entry.version: entry.weights_sha256
            for entry in records(self.bus, self.kafka, TRAINER_JOURNAL)
            if entry.kind is JournalKind.PUBLISH
        }
        assert {version.version: version.sha256 for version in versions} == published
        store = WeightsStore(self.settings.store.uri)
        kept = store.versions()
        assert {1, len(versions) - 1, len(versions)} <= set(kept)
        for version in versions:
            assert {version.sha256} == self.digests[version.step], "any life has the same weights after a step"
            if version.version in kept:
                stored = record_of(store.manifest(version.version))
                assert all(getattr(version, name) == getattr(stored, name) for name in BOUND)
                assert store.read(version.version).sha256 == version.sha256
        assert all(len(found) == 1 for found in self.digests.values())

    def _steps(self) -> float:
        return 0.0 if self.trainer is None else float(self.trainer.state.step)

    def _apply_step(self, state: TrainState, *arguments: Any) -> StepResult:
        result = apply_step(state, *arguments)
        self._note(state)
        return result

    def _note(self, state: TrainState) -> None:
        self.digests[state.step].add(digest(cast(state.weights(), self.settings.trainer.publish_dtype)))

    def ready(self) -> None:
        """As `Stop`."""

    def _story(self) -> None:
        kafka, bus = self.kafka, self.bus
        assert layout.partitions(kafka, SESSIONS) == 2
        publish(bus, kafka, ITEM_TOKENS, [(id_key(item), toy.tokens(item)) for item in range(toy.ITEMS)])
        publish(bus, kafka, HISTORIES, [(id_key(user), _history(user)) for user in range(4)])
        sessions = [toy.session(n, [n, n + 1], labels=n % 3) for n in range(1, 9)]
        stream: list[tuple[bytes, Any]] = [(id_key(session.session_id), session) for session in sessions]
        stream.insert(2, (b"1", sessions[0]))  # twice
        stream.insert(4, (b"4", b"no avro"))
        stream.insert(7, (b"11", toy.session(11, [5, toy.UNKNOWN_ITEM])))
        publish(bus, kafka, SESSIONS, stream)
        pairs = [toy.pair(n, [1, 2, 3], [4, 5, n], (-12.0, -13.0)) for n in (8, 9, 8)]
        publish(bus, kafka, PREFERENCES, [(id_key(pair.pair_id), pair) for pair in pairs])


def valid(entries: list[JournalEntry]) -> list[JournalEntry]:
    """The entries that count: of a trainer that was not outdated, and of the last seed."""
    epoch, counting = 0, list[JournalEntry]()
    for entry in entries:
        if entry.epoch < epoch:
            continue
        if entry.kind is JournalKind.START:
            epoch = entry.epoch
            if entry.step == 0:
                counting.clear()
        counting.append(entry)
    return counting


def _history(user: int) -> History:
    return History(
        user_id=user,
        history_items=pack_longs((user + 3 * k) % toy.ITEMS for k in range(11)),
        history_times_ms=pack_longs([0] * 11),
        history_labels=bytes(k % 3 == 0 for k in range(11)),
        updated_ms=1000,
    )
