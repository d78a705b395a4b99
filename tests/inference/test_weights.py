"""Following versions on a real broker: swaps under load, directives, damaged versions, a store that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY
from torch import nn

from inference.engine.search import Engine
from inference.weights import ServedVersion, VersionFollower
from onerec.errors import DependencyMissingError
from onerec.kafka import metadata
from onerec.model.onerec import OneRec
from onerec.model.reward import RewardModel
from onerec.settings import KafkaSettings, Settings
from schemas.records import VersionStatus
from tests.inference import toys
from tests.inference.loop import eventually
from tests.inference.publishing import Publisher, constant_weights, random_weights, settings_of

pytestmark = pytest.mark.broker


class TinyEngine:
    """What the tests prepare of a version: remembers what it was made of."""

    def __init__(self, onerec: OneRec, reward: RewardModel) -> None:
        self.value = float(onerec.start[0])
        self.reward_value = float(reward.start[0])


Served = ServedVersion[TinyEngine]


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return settings_of(kafka, tmp_path)


def value_of(module: nn.Module) -> float:
    """The one number that all tensors hold; fails where they hold two."""
    values = torch.cat([tensor.double().flatten() for tensor in module.state_dict().values()])
    assert (values == values[0]).all(), "a mixture of two versions"
    return float(values[0])


def serve_until(
    follower: VersionFollower[TinyEngine], holds: Callable[[Served], bool], *, serving: int | None = None
) -> list[int]:
    """Serve without a pause, each batch from one version; the versions in their order.

    Pass what was last served as ``serving``: the next version can be there before the first look.
    """
    served: list[int] = [] if serving is None else [serving]
    deadline = time.monotonic() + 60
    while True:
        version = follower.current()
        if not served or served[-1] != version.version:
            served.append(version.version)
        if holds(version):
            return served
        assert time.monotonic() < deadline, served


def at(version: int) -> Callable[[Served], bool]:
    return lambda served: served.version == version


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"inference_{name}", labels) or 0.0


def serve_until_failed(follower: VersionFollower[TinyEngine], service: str, reason: str, *, still: int) -> None:
    """Serve until a version could not be loaded, and the one before all the time."""
    deadline = time.monotonic() + 60
    before = metric(f"{service}_swap_failures_total", reason=reason)
    while metric(f"{service}_swap_failures_total", reason=reason) <= before:  # it is tried again and again
        assert follower.current().version == still
        assert time.monotonic() < deadline
    assert follower.current().version == still


def test_swaps_under_load_without_ever_mixing_versions(settings: Settings) -> None:
    publisher, began_s = Publisher(settings), time.monotonic()
    publisher.publish(1, constant_weights(1))
    with VersionFollower(settings, TinyEngine, service="under_load") as follower:
        first = follower.wait_first(60)
        assert (first.version, first.record.step) == (1, 10)
        seen = []
        for version in range(2, 8):
            now_ms = time.time_ns() // 1_000_000
            publisher.publish(version, constant_weights(version), learned_ms=(now_ms, now_ms - 1000))
            deadline = time.monotonic() + 60
            while True:
                served = follower.current()
                before = (value_of(served.onerec), value_of(served.reward), served.engine.value)
                torch.randn(50, 50) @ torch.randn(50, 50)  # a batch, during which the next version is loaded
                after = (value_of(served.onerec), value_of(served.reward), served.engine.reward_value)
                assert {*before, *after} == {float(served.version)}
                seen.append(served.version)
                if served.version == version:
                    break
                assert time.monotonic() < deadline
        assert seen == sorted(seen)
        deadline = time.monotonic() + 60
        while metric("under_load_freshness_seconds_count") < 12:
            assert time.monotonic() < deadline
    assert metric("under_load_swaps_total") == metric("under_load_swap_pause_seconds_count") == 6
    assert metric("under_load_load_seconds_count") == 7
    waited_s = metric("under_load_freshness_seconds_sum") - 6.0  # every other one was a second old when published
    assert -1e-6 <= waited_s <= 2 * (time.monotonic() - began_s), (
        "each version's two waits lie between two publications"
    )
    assert metric("under_load_version") == metric("under_load_newest_version") == 7


def test_the_serving_thread_does_not_give_back_what_it_served(settings: Settings) -> None:
    """An engine holds packed weights and encoded histories: to free them takes longer than a swap may."""
    publisher, freed_by = Publisher(settings), list[str]()

    class Freed(TinyEngine):
        def __del__(self) -> None:
            freed_by.append(threading.current_thread().name)

    publisher.publish(1, constant_weights(1))
    with VersionFollower(settings, Freed, service="freeing") as follower:
        assert follower.wait_first(60).version == 1
        for version in (2, 3):
            publisher.publish(version, constant_weights(version))
            deadline = time.monotonic() + 60
            while follower.current().version < version:
                assert time.monotonic() < deadline
        eventually(lambda: len(freed_by) == 2)
    assert freed_by == ["freeing-versions"] * 2


def test_a_reader_that_comes_late_takes_the_newest_only(settings: Settings) -> None:
    publisher = Publisher(settings)
    for version in range(1, 6):
        publisher.publish(version, constant_weights(version))
    with VersionFollower(settings, TinyEngine) as follower:
        assert follower.wait_first(60).version == 5
        assert value_of(follower.current().onerec) == 5


def test_pin_rollback_and_unpin(settings: Settings) -> None:
    publisher = Publisher(settings)
    for version in (1, 2, 3):
        publisher.publish(version, constant_weights(version))
    with VersionFollower(settings, TinyEngine) as follower:
        follower.wait_first(60)
        publisher.direct(1, VersionStatus.PINNED)
        assert serve_until(follower, at(1), serving=3) == [3, 1]
        publisher.publish(4, constant_weights(4))
        with VersionFollower(settings, TinyEngine) as late:
            assert late.wait_first(60).version == 1, "a pin outlives the readers that saw it"
            assert value_of(late.current().onerec) == 1
        assert follower.current().version == 1
        publisher.direct(1, VersionStatus.UNPINNED)
        assert serve_until(follower, at(4), serving=1) == [1, 4]
        publisher.direct(2, VersionStatus.ROLLED_BACK)
        assert serve_until(follower, at(2), serving=4) == [4, 2]
        publisher.publish(5, constant_weights(5))
        assert serve_until(follower, at(5), serving=2) == [2, 5]
        assert value_of(follower.current().reward) == 5


def test_a_shadow_worker_keeps_its_version(settings: Settings) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, constant_weights(1))
    with (
        VersionFollower(settings, TinyEngine, pin_version=1) as shadow,
        VersionFollower(settings, TinyEngine) as live,
    ):
        assert shadow.wait_first(60).version == live.wait_first(60).version == 1
        publisher.publish(2, constant_weights(2))
        publisher.direct(2, VersionStatus.PINNED)
        serve_until(live, at(2))
        assert shadow.current().version == 1


def test_a_damaged_version_is_not_served_and_the_next_good_one_is(settings: Settings, tmp_path: Path) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, constant_weights(1))
    with VersionFollower(settings, TinyEngine, service="damaged") as follower:
        follower.wait_first(60)
        second = publisher.publish(2, constant_weights(2), announce=False)
        file = tmp_path / "store" / second.uri
        whole = file.read_bytes()
        file.write_bytes(whole[:-3])
        publisher.announce(second)
        serve_until_failed(follower, "damaged", "CorruptWeightsError", still=1)
        file.write_bytes(whole)  # it is tried again
        serve_until(follower, at(2))
        publisher.publish(3, constant_weights(3))
        serve_until(follower, at(3))


def test_what_was_announced_must_be_what_is_stored(settings: Settings) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, constant_weights(1))
    with VersionFollower(settings, TinyEngine, service="other") as follower:
        follower.wait_first(60)
        second = publisher.publish(2, constant_weights(2), announce=False)
        values = {name: getattr(second, name) for name in second.__slots__}
        for change, error in (
            ({"sha256": "0" * 64}, "VersionMissingError"),
            ({"uri": "/etc/passwd"}, "OutsideStoreError"),
            ({"preset": "small"}, "IncompatibleWeightsError"),
            ({"codebook_version": 7}, "VersionMissingError"),
        ):
            publisher.announce(type(second)(**values | change))
            serve_until_failed(follower, "other", error, still=1)
        publisher.announce(second)
        serve_until(follower, at(2))
        publisher.publish(3, constant_weights(3))
        serve_until(follower, at(3))


def test_a_lazy_decoder_is_served_and_the_other_form_of_the_preset_is_not(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_of(kafka, tmp_path, decoder="lazy")
    publisher = Publisher(settings)
    publisher.publish(1, random_weights(name="tiny-lazy"))
    with VersionFollower(settings, Decoded, service="lazy") as follower:
        first = follower.wait_first(60)
        assert (first.record.preset, first.onerec.config.name) == ("tiny-lazy", "tiny-lazy")
        assert first.engine.items == 3
    other = settings_of(kafka, tmp_path)
    with VersionFollower(other, TinyEngine, service="not_lazy") as follower:
        eventually(lambda: metric("not_lazy_swap_failures_total", reason="IncompatibleWeightsError") > 0)
        with pytest.raises(DependencyMissingError, match="No version"):
            follower.wait_first(0.2)


class Decoded:
    """Sessions of a version for an empty history."""

    def __init__(self, onerec: OneRec, _: RewardModel) -> None:
        catalogue = toys.catalogue(onerec.config, 30)
        history = toys.histories(onerec.config, catalogue, [0])
        self.items = Engine(onerec).generate(history, catalogue).sessions.shape[2]


def test_unsigned_and_wrongly_signed_versions_are_not_served(settings: Settings, tmp_path: Path) -> None:
    key, another = tmp_path / "one.key", tmp_path / "another.key"
    key.write_text("0" * 64)
    another.write_text("1" * 64)
    publisher = Publisher(signing(settings, key))
    publisher.publish(1, constant_weights(1))
    verifying = settings.model_copy(update={"store": settings.store.model_copy(update={"verify_key_file": key})})
    with VersionFollower(verifying, TinyEngine, service="signed") as follower:
        follower.wait_first(60)
        for version, impostor in ((2, Publisher(settings)), (3, Publisher(signing(settings, another)))):
            impostor.publish(version, constant_weights(version))
            serve_until_failed(follower, "signed", "WrongSignatureError", still=1)
        eventually(lambda: metric("signed_newest_version") == 3)  # version 2, which is tried again, fails alike
        assert metric("signed_version") == follower.current().version == 1
        publisher.restart()
        publisher.publish(4, constant_weights(4))
        assert serve_until(follower, at(4), serving=1) == [1, 4]


def signing(settings: Settings, key: Path) -> Settings:
    return settings.model_copy(update={"store": settings.store.model_copy(update={"signing_key_file": key})})


def test_a_version_announced_again_with_other_weights_is_loaded_again(settings: Settings) -> None:
    Publisher(settings).publish(1, constant_weights(1))
    with VersionFollower(settings, TinyEngine) as follower:
        assert value_of(follower.wait_first(60).onerec) == 1
        Publisher(settings).publish(1, constant_weights(9))
        serve_until(follower, lambda served: served.engine.value == 9)


def test_a_store_that_goes_away_leaves_the_last_version_served(settings: Settings, tmp_path: Path) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, constant_weights(1))
    with VersionFollower(settings, TinyEngine, service="away") as follower:
        follower.wait_first(60)
        second = publisher.publish(2, constant_weights(2), announce=False)
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        publisher.announce(second)
        serve_until_failed(follower, "away", "StoreUnreachableError", still=1)
        (tmp_path / "elsewhere").rename(tmp_path / "store")
        serve_until(follower, at(2))


def test_modules_are_ready_to_serve(settings: Settings) -> None:
    weights = random_weights(3)
    Publisher(settings).publish(1, weights)
    with VersionFollower(settings, TinyEngine) as follower:
        served = follower.wait_first(60)
    assert not served.onerec.training
    assert not any(parameter.requires_grad for parameter in served.onerec.parameters())
    state = served.onerec.state_dict()
    assert all(torch.equal(state[name].bfloat16(), weights[f"onerec.{name}"]) for name in state)
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


def test_no_version_is_a_clear_error(settings: Settings) -> None:
    with VersionFollower(settings, TinyEngine) as follower:
        with pytest.raises(DependencyMissingError, match="Start the trainer"):
            follower.wait_first(0.2)
        assert not follower.has_version
        with pytest.raises(DependencyMissingError, match="wait_first"):
            follower.current()


def test_a_missing_topic_ends_the_wait(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "APPEAR_TIMEOUT_S", 0.2)
    nowhere = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"topic_prefix": "none-"})})
    with VersionFollower(nowhere, TinyEngine) as follower, pytest.raises(DependencyMissingError, match="onerec topics"):
        follower.wait_first(60)
