"""A weights store with torn files in it, and one that goes away: what is served, published and said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from inference import weights
from onerec.settings import KafkaSettings, Settings
from onerec.weights.shelf import MANIFEST
from schemas.records import Status
from tests.inference.loop import RunningWorker, World, eventually, running
from tests.inference.publishing import Publisher, random_weights, settings_of
from tests.recovery.versions import check_identical
from tests.trainer import toy
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import World as Training

pytestmark = pytest.mark.broker


def truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def flipped(whole: bytes) -> bytes:
    """One bit, deep in the file."""
    at = len(whole) * 3 // 4
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


def zeroed(whole: bytes) -> bytes:
    """A tail that was allocated and never written."""
    at = len(whole) // 2
    return whole[:at] + bytes(len(whole) - at)


def emptied(_whole: bytes) -> bytes:
    return b""


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (truncated, flipped, zeroed, emptied)


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000})


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    world = World(settings)
    world.items(range(60))
    yield world
    world.close()


def refused() -> float:
    name = "inference_worker_swap_failures_total"
    return REGISTRY.get_sample_value(name, {"reason": "CorruptWeightsError"}) or 0.0


def is_degraded(service: str) -> bool:
    return REGISTRY.get_sample_value("onerec_degraded", {"service": service, "lacks": "weights store"}) == 1


def served(world: World) -> int:
    """The version that answers now."""
    answer = world.answer(world.ask(1))
    assert answer.status is Status.ANSWERED, answer.reason
    return answer.model_version


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_a_torn_version_is_refused_while_the_one_before_goes_on_until_there_is_a_good_one(
    settings: Settings, world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, random_weights(1))
    store = Path(settings.store.uri)

    def tear(version: int, damage: Callable[[bytes], bytes], *, manifest: bool = False) -> Callable[[], object]:
        """Publish a torn version; what repairs it."""
        if kind == "full":
            publisher.restart()
        record = publisher.publish(version, random_weights(version), announce=False)
        assert record.kind == kind
        file = (store / record.uri).with_name(MANIFEST) if manifest else store / record.uri
        whole, before = file.read_bytes(), refused()
        file.write_bytes(damage(whole))
        publisher.announce(record)
        eventually(lambda: refused() > before)
        assert served(world) == version - 1
        return lambda: file.write_bytes(whole)

    with running(settings) as worker:
        worker.wait_ready()
        damages = DAMAGES if kind == "delta" else DAMAGES[:2]
        for version, damage in enumerate(damages, start=2):
            repair = tear(version, damage)
            assert f"version {version} cannot be served, version {version - 1} goes on" in caplog.text
            repair()
            eventually(lambda: served(world) == version)  # noqa: B023
        version = 2 + len(damages)
        tear(version, truncated, manifest=True)()
        eventually(lambda: served(world) == version)
        tear(version + 1, flipped)  # and nobody repairs it
        publisher.restart()
        publisher.publish(version + 2, random_weights(version + 2))
        eventually(lambda: served(world) == version + 2)


def test_a_worker_serves_on_without_the_store_says_so_and_takes_what_was_published_meanwhile(
    settings: Settings, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(weights, "LOOK_S", 0.1)
    store, away = tmp_path / "store", tmp_path / "away"
    publisher = Publisher(settings)
    publisher.publish(1, random_weights(1))
    store.rename(away)
    worker = RunningWorker(settings)  # starts without it
    eventually(lambda: is_degraded("worker"))
    assert "without its weights store for 0 s: nothing goes on" in caplog.text
    asked = world.ask(1)
    away.rename(store)
    assert world.answer(asked).model_version == 1
    worker.wait_ready()
    eventually(lambda: not is_degraded("worker"))

    second = publisher.publish(2, random_weights(2), announce=False)
    store.rename(away)
    eventually(lambda: is_degraded("worker"))  # though nothing was announced
    assert served(world) == 1
    store.mkdir()  # the place of a disk that is not mounted
    publisher.announce(second)
    for _ in range(3):
        assert served(world) == 1
    assert is_degraded("worker")
    assert "version 1 goes on: The weights store" in caplog.text
    store.rmdir()
    away.rename(store)
    eventually(lambda: served(world) == 2)
    eventually(lambda: not is_degraded("worker"))
    worker.close()


def test_a_trainer_waits_for_its_store_and_neither_makes_another_nor_announces_what_is_not_stored(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Training(kafka, tmp_path, {"full_every": 3})
    world.publish_catalogue()
    world.publish_histories()
    store, away = tmp_path / "store", tmp_path / "away"
    with trainer(world) as learning:
        waited: list[int] = []

        def wait(_seconds: float) -> bool:
            assert is_degraded("trainer")
            waited.append(len(world.versions()))
            if len(waited) % 3 == 1:
                assert not store.exists(), "it was not made anew"
                store.mkdir()  # the place of a disk that is not mounted
            elif len(waited) % 3 == 2:
                assert list(store.iterdir()) == [], "nothing was put beside the store"
            else:
                store.rmdir()
                away.rename(store)
            return False

        monkeypatch.setattr(learning.publisher, "_wait", wait)
        for number in range(1, 4):  # deltas and a full version
            world.publish_sessions([toy.session(number, [number])])
            learn_all(learning, sessions=1)
            store.rename(away)
            learning.publish()
            assert waited == [each for each in range(1, number + 1) for _ in range(3)]
            assert not is_degraded("trainer")
        world.publish_sessions([toy.session(9, [9])])
        learn_all(learning, sessions=1)
        learning.checkpoint()
    store.rename(away)
    with trainer(world) as successor:  # starts without it; its next version is a full one, which needs no parent
        assert successor.state.version % 3 == 2
        world.publish_sessions([toy.session(10, [10])])
        learn_all(successor, sessions=1)

        def bring_back(_seconds: float) -> bool:
            assert not store.exists(), "it was not made anew"
            away.rename(store)
            return False

        monkeypatch.setattr(successor.publisher, "_wait", bring_back)
        successor.publish()
    check_identical(world)
