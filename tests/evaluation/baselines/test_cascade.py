"""The stages of a cascade narrow, leave out what was seen, and the ranker orders by what it was trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.baselines.attributes import ItemAttributes
from evaluation.baselines.cascade import Cascade, Sizes, Stages
from evaluation.baselines.counts import Popularity
from evaluation.baselines.multi_objective import ObjectiveModel, PreRanker, Ranker, overall, targets
from evaluation.baselines.sequences import SequenceBatch, sequence_batch
from evaluation.baselines.training import Training, train
from evaluation.baselines.transformer import TrunkSettings
from evaluation.table1.world import World
from tests.evaluation.table1.small_world import GROUPS, ITEMS, OF_GROUP, small_world

TRUNK = TrunkSettings(length=32, width=32, layers=1, hidden=64, dropout=0.1)
LESSONS = Training(epochs=4, batch=32, learning_rate=1e-2)
SIZES = Sizes(60, 20)


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def models(world: World) -> dict[str, ObjectiveModel]:
    found = {}
    for make in (PreRanker, Ranker):
        attributes = ItemAttributes.of(world.rows.items)
        model = train(lambda: make(attributes, TRUNK), world.rows.past, LESSONS, seed=1)  # noqa: B023
        assert isinstance(model, ObjectiveModel)
        found[make.__name__] = model
    return found


@pytest.fixture(scope="module")
def stages(world: World, models: dict[str, ObjectiveModel]) -> Stages:
    cascade = Cascade(Popularity(world.rows.past, ITEMS), models["PreRanker"], models["Ranker"], SIZES)
    return cascade.recommend(cases(world), seen(world))


def cases(world: World) -> SequenceBatch:
    return sequence_batch(world.rows.past, world.cases.users, TRUNK.length)


def seen(world: World) -> list[np.ndarray]:
    return [world.rows.past.items[world.rows.past.user(row)] for row in world.cases.users.tolist()]


def liked_half(world: World) -> torch.Tensor:
    """Bool [ITEMS]: items of the groups that anybody ever takes to."""
    group = (world.rows.items.item_ids - 1000) // OF_GROUP
    return torch.from_numpy(group < GROUPS // 2)


def test_each_stage_keeps_some_of_what_the_one_before_let_through(stages: Stages, world: World) -> None:
    assert stages.retrieved.shape == (40, 60)
    assert stages.pre_ranked.shape == stages.ranked.shape == (40, 20)
    assert torch.isfinite(stages.values).all()
    assert (stages.values[:, :-1] >= stages.values[:, 1:]).all()
    for case, own in enumerate(seen(world)):
        retrieved, pre_ranked = set(stages.retrieved[case].tolist()), set(stages.pre_ranked[case].tolist())
        assert pre_ranked < retrieved
        assert set(stages.ranked[case].tolist()) == pre_ranked
        assert len(retrieved) == 60
        assert not retrieved & set(own.tolist())


@pytest.mark.parametrize("name", ["PreRanker", "Ranker"])
def test_a_ranker_orders_by_what_it_was_trained_for(name: str, world: World, models: dict[str, ObjectiveModel]) -> None:
    everything = torch.arange(ITEMS).expand(40, -1)
    with torch.inference_mode():
        ratings = models[name].rate(cases(world), everything)
    liked = liked_half(world)
    for objective, least in (("swt", 0.3), ("vtr", 0.3), ("ltr", 0.2)):
        values = ratings[:, :, ("swt", "vtr", "wtr", "ltr").index(objective)]
        assert values[:, liked].mean() > values[:, ~liked].mean() + least
    assert ratings[:, :, 2].mean() < 0.1  # nobody follows


def test_the_ranked_are_more_liked_than_the_retrieved(world: World, models: dict[str, ObjectiveModel]) -> None:
    class Anything:
        def scores(self, batch: SequenceBatch) -> torch.Tensor:
            return torch.rand((len(batch), ITEMS), generator=torch.Generator().manual_seed(3))

    found = Cascade(Anything(), models["PreRanker"], models["Ranker"], SIZES).recommend(cases(world), seen(world))
    liked = liked_half(world)
    retrieved, top = (liked[items].float().mean().item() for items in (found.retrieved, found.ranked[:, :5]))
    assert retrieved < 0.6
    assert top > 0.9


def test_histories_tell_neither_watch_time_nor_follows(world: World) -> None:
    batch = sequence_batch(world.rows.past, world.cases.users[:1], 32)
    values, known = targets(batch)
    assert known[0, :16].tolist() == [[False, True, False, True]] * 16
    assert bool(known[0, 16:].all())
    long = batch.watch_ms[0, 16:] == 25_000
    assert values[0, 16:, 1].tolist() == long.float().tolist()
    assert values[0, 16:, 0][long].min() > 0.6
    assert values[0, 16:, 0][~long].max() < 0.1


def test_an_item_that_was_seen_has_no_value() -> None:
    ratings = torch.tensor([[[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]]])
    values = overall(ratings, torch.tensor([[True, False, True]]))
    assert values[0, 1] == -torch.inf
    assert values[0, 2] > values[0, 0]
