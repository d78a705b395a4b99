"""A real disk without room, under the local state, the checkpoints and the weights store: said, survived, made good."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from inference import histories
from onerec.errors import DependencyMissingError, ExitCode
from onerec.settings import KafkaSettings
from onerec.state.store import LocalStore
from onerec.weights.errors import StoreUnreachableError
from onerec.weights.tensors import digest
from schemas.records import JournalKind, Status
from tests.inference.loop import RunningWorker, running
from tests.inference.loop import World as Serving
from tests.inference.publishing import Publisher, random_weights, settings_of
from tests.recovery.small_disk import SmallDisk, small_disk
from tests.recovery.versions import check_identical
from tests.recovery.waves import BY_EVENT_TIME, close_all, wave
from tests.stream.joiner.running import Feeder, JoinerProcess
from tests.stream.joiner.test_service import NOW_MS, check_against_oracle
from tests.trainer import toy
from tests.trainer.test_checkpoint import SURROUNDINGS
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import DEADLINE_S, World
from trainer.checkpoint import Checkpoints

DAY_MS = 24 * 3_600_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Where the services keep their state."""
    with small_disk(tmp_path / "state") as made:
        yield made


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


def is_degraded(lacks: str) -> bool:
    return REGISTRY.get_sample_value("onerec_degraded", {"service": "trainer", "lacks": lacks}) == 1


def test_local_state_lets_go_of_a_full_disk_and_goes_on_from_what_it_holds(disk: SmallDisk) -> None:
    folder = disk.folder / "p0"
    store = LocalStore(folder, "a")
    store.write([(b"u1", b"one")], {"changelog": 1})
    store.flush()
    disk.fill()
    store.write([(b"u%d" % user, os.urandom(500)) for user in range(1, 1000)], {"changelog": 2})
    with pytest.raises(DependencyMissingError, match=rf"{folder} cannot be written.*No space left.*Free the disk"):
        store.flush()
    store.close()
    store.close()

    with pytest.raises(DependencyMissingError, match=rf"{folder} cannot be written.*No space left"):
        LocalStore(folder, "a")
    disk.free()
    again = LocalStore(folder, "a")

    assert again.positions == {"changelog": 1}, "nothing was thrown away, and what the disk did not take is read again"
    assert list(again.items(b"u")) == [(b"u1", b"one")]
    again.close()


@pytest.mark.broker
def test_a_joiner_without_room_for_its_state_ends_and_joins_the_rest_once_when_there_is_some(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    events = wave(0, NOW_MS)
    feeder = Feeder(kafka)
    feeder.publish(events)
    folder = tmp_path / "joiner"
    with small_disk(folder / "state") as disk, JoinerProcess(kafka, folder, **BY_EVENT_TIME) as joiner:
        joiner.until(lambda samples: samples.get("stream_joiner_events_total") == len(events))
        disk.fill()
        for day in range(1, 200):  # what is written goes to disk every few seconds
            events += (today := wave(day, NOW_MS + day * DAY_MS))
            feeder.publish(today)
            if joiner.has_ended_within(0.3):
                break
        assert joiner.wait() == ExitCode.DEPENDENCY_MISSING
        assert f"Local state {disk.folder}" in joiner.output()
        assert "No space left on device" in joiner.output()
        assert "Free the disk, or set store.state_dir; nothing is lost" in joiner.output()
        assert "Traceback" not in joiner.output()

        disk.free()
        joiner.start()
        joiner.until_ready()
        events += (last := wave(300, NOW_MS + 300 * DAY_MS))
        feeder.publish(last)
        close_all(kafka, feeder, joiner, events, NOW_MS + 301 * DAY_MS)
        assert joiner.stop() == ExitCode.DONE
    check_against_oracle(kafka, events)


@pytest.mark.broker
def test_a_worker_without_room_for_histories_ends_and_knows_them_all_when_there_is_some(
    kafka: KafkaSettings, tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "LocalStore", functools.partial(LocalStore, flush_interval_s=0.1))
    settings = settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000})
    world = Serving(settings)
    world.items(range(60))
    Publisher(settings).publish(1, random_weights(1))
    worker = RunningWorker(settings)
    worker.wait_ready()
    disk.fill()
    for user in itertools.count(7):
        world.history(user, range(1000, 1008))
        if worker.has_ended_within(0.2):
            break
    with pytest.raises(DependencyMissingError, match=rf"Local state {disk.folder}.*No space left.*Free the disk"):
        worker.close()
    asked = world.ask(7)
    disk.free()
    with running(settings):
        answer = world.answer(asked)
    world.close()
    assert (answer.status, answer.history_length) == (Status.ANSWERED, 8)


@pytest.mark.broker
def test_a_trainer_without_room_for_checkpoints_goes_on_and_its_successor_has_the_same_bits(
    world: World, disk: SmallDisk
) -> None:
    with trainer(world) as learning:
        world.publish_sessions([toy.session(n, [n]) for n in range(1, 4)])
        learn_all(learning, sessions=3)
        learning.checkpoint()
        kept = sorted(disk.folder.rglob("step-*"))
        disk.fill()
        world.publish_sessions([toy.session(n, [n]) for n in range(4, 9)])
        learn_all(learning, sessions=5)
        learning.checkpoint()
        assert is_degraded("checkpoints")
        assert sorted(disk.folder.rglob("step-*")) == kept, "nothing half written is left"
        expected = digest(learning.state.weights())
    with trainer(world) as successor:  # on a disk that is still full
        assert digest(successor.state.weights()) == expected
        disk.free()
        world.publish_sessions([toy.session(9, [9])])
        learn_all(successor, sessions=1)
        successor.checkpoint()
        assert not is_degraded("checkpoints")
        assert len(list(disk.folder.rglob("step-*"))) == len(kept) + 1
    check_identical(world)


@pytest.mark.broker
def test_a_trainer_without_room_for_its_seed_says_so_and_trains_it_again(world: World, disk: SmallDisk) -> None:
    disk.fill()
    assert world.start().wait(DEADLINE_S) == ExitCode.DEPENDENCY_MISSING, world.log()
    assert f"in {disk.folder}" in world.log()
    assert "No space left on device" in world.log()
    assert "Make room there, or set store.state_dir. The seed is trained again." in world.log()
    assert world.versions() == []
    disk.free()
    with trainer(world) as learning:
        world.publish_sessions([toy.session(1, [1])])
        learn_all(learning, sessions=1)
        learning.publish()
    check_identical(world)


@pytest.mark.broker
def test_versions_that_do_not_fit_are_announced_once_they_do(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "store") as disk:
        with trainer(world) as learning:
            world.publish_sessions([toy.session(1, [5])])
            learn_all(learning, sessions=1)
            disk.fill()
            waited: list[int] = []

            def make_room(_seconds: float) -> bool:
                waited.append(len(world.versions()))
                assert is_degraded("weights store")
                if len(waited) == 3:
                    disk.free()
                return False

            monkeypatch.setattr(learning.publisher, "_wait", make_room)
            learning.publish()
            assert waited == [1, 1, 1], "nothing is announced that is not stored"
            assert not is_degraded("weights store")

            disk.fill()
            world.publish_sessions([toy.session(2, [7])])
            learn_all(learning, sessions=1)
            monkeypatch.setattr(learning.publisher, "_wait", lambda _seconds: True)  # asked to stop meanwhile
            with pytest.raises(StoreUnreachableError, match=rf"{disk.folder}.*No space left"):
                learning.publish()
        publishes = [entry.version for entry in world.journal() if entry.kind is JournalKind.PUBLISH]
        assert (publishes, len(world.versions())) == ([1, 2, 3], 2)
        disk.free()
        with trainer(world) as successor:
            assert successor.state.version == 3
        check_identical(world)


def test_checkpoints_of_a_full_disk_are_whole_or_not_there(disk: SmallDisk) -> None:
    """However much room there is: the one before is never touched by one that does not fit."""
    state = toy.state()
    checkpoints = Checkpoints(disk.folder / "trainer", keep=1)
    first = checkpoints.save(state, SURROUNDINGS)
    size = sum(file.stat().st_size for file in first.iterdir())
    for room in range(0, size, max(1, size // 8)):
        disk.fill()
        with (disk.folder / "ballast").open("r+b") as ballast:
            ballast.truncate((disk.folder / "ballast").stat().st_size - room)
        state.step += 1
        with contextlib.suppress(OSError):
            first = checkpoints.save(state, SURROUNDINGS)
        assert checkpoints.folders() == [first]
        found = checkpoints.load(toy.TINY, state.settings)
        assert found is not None
        disk.free()
