"""What is promised of a trainer's versions, whatever became of it."""

from __future__ import annotations

from onerec.weights.store import WeightsStore
from tests.trainer.world import World
from trainer.reproduce import reproduce


def check_identical(world: World) -> None:
    """Every announced version is stored whole, in order, and made again from the seed with the same bits."""
    versions, store = world.versions(), WeightsStore(world.settings.store.uri)
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
    assert [store.read(version.version).sha256 for version in versions] == [version.sha256 for version in versions]
    found = reproduce(world.settings, None, from_seed=True)
    assert found.identical
    assert [each.version for each in found.versions] == [version.version for version in versions]
