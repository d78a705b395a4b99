"""A published version is made again, bit for bit, from a checkpoint or the seed, the journal and the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.settings import KafkaSettings
from tests.trainer import toy
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import World
from trainer.reproduce import reproduce
from trainer.verdict import Reproduction


@pytest.fixture
def world(kafka: KafkaSettings, tmp_path: Path) -> World:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    return world


def learn_and_publish(world: World, first: int, *, checkpoint: bool = False) -> None:
    """A trainer's life: two more versions, each of four sessions and a pair; then it is gone without a checkpoint."""
    with trainer(world) as running:
        for start in (first, first + 4):
            world.publish_sessions([toy.session(n, [n % 50, (3 * n) % 50]) for n in range(start, start + 4)])
            world.publish_pairs([toy.pair(start, [1, 2, 3], [4, 5, 6], (-12.0, -12.5))])
            learn_all(running, sessions=4, pairs=1)
            running.publish()
            if checkpoint:
                running.checkpoint()


def bases(found: Reproduction) -> list[str]:
    return [each.base for each in found.versions]


def test_from_a_checkpoint_and_from_the_seed(world: World) -> None:
    learn_and_publish(world, 1, checkpoint=True)
    versions = {version.version: version.sha256 for version in world.versions()}
    newest = reproduce(world.settings, [3])
    assert newest.identical
    assert newest.same_environment
    assert newest.versions[0].base.startswith("checkpoint of step")
    assert 0 < newest.versions[0].steps < newest.versions[0].step
    everything = reproduce(world.settings, None, from_seed=True)
    assert everything.identical
    assert {each.version: each.made_sha256 for each in everything.versions} == versions
    assert bases(everything) == ["seed"] * 3
    assert [each.steps for each in everything.versions] == [each.step for each in everything.versions]
    assert bases(reproduce(world.settings, [1])) == ["seed"], "its own checkpoint would prove nothing"
