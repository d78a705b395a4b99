"""Which kernels a trainer computes by is recorded, and a version is made again by the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY

from onerec.errors import DependencyMissingError
from onerec.kernels import binding, check
from onerec.model import backend
from onerec.settings import KafkaSettings, TrainerSettings
from tests.trainer.test_reproduce import learn_and_publish
from tests.trainer.test_service import trainer
from tests.trainer.world import World
from trainer import environment, kernels, replay
from trainer.reproduce import reproduce

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _built() -> Iterator[None]:
    """Skips the test where this machine has no compiler."""
    try:
        binding.build()
    except DependencyMissingError as error:
        pytest.skip(str(error))
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (binding.load, check.checked):
        cached.cache_clear()


def not_built(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on, as on a machine without a compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    forget()
    backend.use(None)


def test_the_settings_and_the_device_decide() -> None:
    kernels.choose(TrainerSettings(), CPU)
    assert kernels.name() == binding.LIBRARY.path().stem
    for settings, device in ((TrainerSettings(compiled=False), CPU), (TrainerSettings(), torch.device("cuda"))):
        kernels.choose(settings, device)
        assert kernels.name() == "torch"


def test_of_a_sharded_model_products_are_torchs_and_a_journal_that_says_so_finds_them_again() -> None:
    kernels.choose(TrainerSettings(), CPU, sharded=True)
    chosen = backend.chosen()
    assert chosen is not None
    assert chosen.branch_unit == 0
    named = kernels.name()
    assert named.startswith(binding.LIBRARY.path().stem)
    kernels.choose(TrainerSettings(), CPU)
    kernels.use_recorded({kernels.KEY: named})
    assert kernels.name() == named
    kernels.use_those_of_rank_0(named)
    assert kernels.name() == named


def test_a_rank_without_the_kernels_of_the_first_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = binding.LIBRARY.path().stem
    kernels.use_those_of_rank_0(name)
    assert kernels.name() == name
    kernels.use_those_of_rank_0("torch")
    assert kernels.name() == "torch"
    not_built(monkeypatch, tmp_path)
    with pytest.raises(DependencyMissingError, match=f"{name}, which this one does not have.*on every machine"):
        kernels.use_those_of_rank_0(name)


@pytest.mark.slow
@pytest.mark.broker
def test_versions_are_made_again_by_the_kernels_that_made_them(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    learn_and_publish(world, 1)
    assert REGISTRY.get_sample_value("trainer_kernels", {"kernels": kernels.name()}) == 1
    world.trainer = {"compiled": False}
    learn_and_publish(world, 9)  # executes again what the compiled kernels have done, and goes on by torch
    assert kernels.name() == "torch"
    starts = [entry.environment for entry in world.journal() if entry.environment]
    assert [kernels.recorded(start) for start in starts] == [binding.LIBRARY.path().stem, "torch"]
    for setting in (True, False):
        world.trainer = {"compiled": setting}
        found = reproduce(world.settings, None, from_seed=True)
        assert found.identical
        assert found.same_environment
        assert kernels.name() == "torch", "as it was before"
    not_built(monkeypatch, tmp_path / "empty")
    elsewhere = reproduce(world.settings, [3], from_seed=True)
    assert elsewhere.passed
    assert not elsewhere.same_environment
    assert set(elsewhere.versions[0].differences) == {kernels.KEY}


@pytest.mark.broker
def test_a_journal_from_before_there_were_kernels_is_torchs(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    with trainer(world) as running:
        old = {key: value for key, value in running.environment.items() if key != kernels.KEY}
        assert kernels.name() != "torch"
        assert environment.differences(old, running.environment) == {}
        replay.use(running.state, old)
        assert kernels.name() == "torch"
