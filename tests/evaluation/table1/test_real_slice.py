"""Orderings that must hold on a slice of KuaiRand itself, with margin: no figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from evaluation.baselines.counts import ItemCooccurrence, Popularity
from evaluation.baselines.sequences import SequenceBatch, sequence_batch
from evaluation.baselines.training import Recommends
from evaluation.ranking import recall
from evaluation.table1.candidates import item_wise
from evaluation.table1.generative import seen_of
from evaluation.table1.judge import train_reward
from evaluation.table1.protocol import QUICK
from evaluation.table1.quality import quality
from evaluation.table1.world import World, load
from onerec.model.presets import preset

USERS, CASES = 2000, 800
SMALL = preset("small")


@pytest.fixture(scope="module")
def world() -> World:
    torch.set_num_threads(1)
    return load(dataclasses.replace(QUICK, users=USERS, cases=CASES), SMALL)


class Anything:
    """Random scores."""

    def __init__(self, items: int) -> None:
        self._items = items

    def scores(self, batch: SequenceBatch) -> torch.Tensor:
        """[B, N], as `training.Recommends`."""
        return torch.rand((len(batch), self._items), generator=torch.Generator().manual_seed(5))


def recall_of(make: Callable[[int], Recommends], world: World) -> float:
    """Recall@10 over the cases that have something to find."""
    model, users = make(len(world.rows.items.item_ids)), world.cases.users
    scores = model.scores(sequence_batch(world.rows.past, users, 50))
    found = item_wise(scores, [seen_of(world, row) for row in users.tolist()], 5, 1, 10).ranking.tolist()
    return float(np.mean([recall(own, truth) for own, truth in zip(found, world.cases.truth, strict=True) if truth]))


def test_cooccurrence_is_above_popularity_and_that_above_chance(world: World) -> None:
    past = world.rows.past
    together = recall_of(lambda items: ItemCooccurrence(past, items), world)
    popular = recall_of(lambda items: Popularity(past, items), world)
    random = recall_of(Anything, world)
    assert together > 1.2 * popular
    assert popular > 3 * random + 0.01


def test_the_judge_is_above_chance_on_sessions_it_has_not_seen(world: World) -> None:
    judge = train_reward(world.judge, SMALL, epochs=1, history_samples=12_000, seed=1)
    found = quality(judge, world, SMALL)
    assert found["sessions"] > 300
    assert found["swt"]["spearman"] > 0.3
    assert found["vtr"]["spearman"] > 0.3
    assert found["vtr"]["auc"] > 0.6
    assert found["within_session"]["by_logistic_model"] > 0.56
    assert found["within_session"]["ordered"] > 0.53
