"""Two trainers of one model: whoever began later is the one, wherever the other fell asleep and whenever it wakes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from onerec.errors import CheckFailedError, ExitCode
from onerec.settings import KafkaSettings
from onerec.weights.store import Artifact, WeightsStore
from onerec.weights.tensors import digest
from schemas.records import JournalKind, VersionKind
from schemas.topics import SESSIONS
from tests.trainer import toy
from tests.trainer.test_kills import consumed, weights_without_interruption
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import DEADLINE_S, World
from trainer.guard import SuccessorWatch
from trainer.journal import read_journal, read_story
from trainer.publish import cast

pytestmark = pytest.mark.broker
BOTH_ALIVE = "Another trainer of model onerec has taken over"


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


@pytest.mark.exactly_once
def test_a_trainer_that_slept_before_its_announcement_cannot_make_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the version in the journal in time; its successor announces it, and goes on to the next one."""
    with trainer(world) as sleeper:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(sleeper, sessions=1)
        write = sleeper.publisher._store.write_delta
        expected = digest(cast(sleeper.state.weights(), "bfloat16"))

        def slow_write(*arguments: Any) -> Artifact:
            with trainer(world) as successor:
                assert successor.state.version == 2
                world.publish_sessions([toy.session(2, [7])])
                learn_all(successor, sessions=1)
                successor.publish()
            return write(*arguments)

        monkeypatch.setattr(sleeper.publisher._store, "write_delta", slow_write)
        with pytest.raises(CheckFailedError, match=BOTH_ALIVE):
            sleeper.publish()
    assert [(v.version, v.sha256 == expected) for v in world.versions()] == [(1, False), (2, True), (3, False)]
    store = WeightsStore(str(world.folder / "store"))
    assert {v.version: v.sha256 for v in world.versions()} == {n: store.read(n).sha256 for n in (1, 2, 3)}


@pytest.mark.exactly_once
def test_an_announcement_whose_producer_is_lost_is_made_with_a_new_one(world: World) -> None:
    with trainer(world) as running:
        running.publisher._announcer._fence()  # a second producer of the same name
        stale = running.publisher._announcer._writer
        running.publisher._announcer._fence()
        running.publisher._announcer._writer = stale
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        running.publish()
    assert [v.version for v in world.versions()] == [1, 2]


def test_a_coordinator_that_does_not_answer_at_first_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trainer(world) as running:
        announcer = running.publisher._announcer
        fence, silent = announcer._fence, [KafkaError._TIMED_OUT, KafkaError.COORDINATOR_NOT_AVAILABLE]

        def fence_at_last() -> None:
            if silent:
                raise KafkaException(KafkaError(silent.pop()))
            fence()

        monkeypatch.setattr(announcer, "_fence", fence_at_last)
        assert announcer.take_over() == running.state.version == 1


def test_an_idle_trainer_notices_its_successor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.guard.INTERVAL_S", 0.0)
    with trainer(world) as sleeper:
        sleeper.journal.flush()
        watch = SuccessorWatch(sleeper.journal)
        watch.look()
        with trainer(world), pytest.raises(CheckFailedError, match=BOTH_ALIVE):
            watch.look()


def test_a_number_is_passed_over_where_its_weights_do_not_come_out_again(world: World) -> None:
    """The predecessor, on another kind of machine, may have it in the store already, or put it there yet."""
    with trainer(world) as running:
        world.publish_sessions([toy.session(1, [5])])
        learn_all(running, sessions=1)
        running.journal.publish(running.state.step, 2, "0" * 64)
        running.journal.flush()
    with trainer(world) as successor:
        assert successor.state.version == 2
        assert [v.version for v in world.versions()] == [1]
        successor.checkpoint()
    newest = world.versions()[-1]
    assert (newest.version, newest.kind) == (3, VersionKind.FULL)
    published = [(e.version, e.weights_sha256) for e in world.journal() if e.kind is JournalKind.PUBLISH]
    assert published[1:] == [(2, "0" * 64), (3, newest.sha256)]


@pytest.mark.slow
def test_a_process_that_is_stopped_while_another_takes_over_ends_when_it_wakes_up(world: World) -> None:
    zombie = world.start()
    try:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 6)])
        world.wait_for_sessions(5, zombie)
        zombie.send_signal(signal.SIGSTOP)
        with world.running() as successor:
            world.publish_sessions([toy.session(n, [n]) for n in range(6, 11)])
            world.wait_for_sessions(10, successor)
            zombie.send_signal(signal.SIGCONT)
            assert zombie.wait(DEADLINE_S) == ExitCode.CHECK_FAILED
            assert BOTH_ALIVE in world.log()
            world.publish_sessions([toy.session(n, [n]) for n in range(11, 16)])
            world.wait_for_sessions(15, successor)
    finally:
        zombie.kill()
        zombie.wait()
    assert sum(r.applied for r in consumed(world, SESSIONS.name)) == 15
    entries = read_journal(world.kafka, "onerec", start=0, timeout_s=DEADLINE_S)
    valid = {e.version: e.weights_sha256 for e in read_story(entries, after_step=0).publishes.values()}
    assert {v.version: v.sha256 for v in world.versions()} == valid == weights_without_interruption(world)[1]
