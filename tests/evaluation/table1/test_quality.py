"""Measures of the judge by hand, and a judge that has learned is far above chance on sessions it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.table1.bound import item_values
from evaluation.table1.judge import judged, train_reward
from evaluation.table1.quality import auc, quality, spearman
from evaluation.table1.world import World
from onerec.model.reward import RewardModel
from tests.evaluation.table1.small_world import CONFIG, small_world


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


@pytest.fixture(scope="module")
def judge(world: World) -> RewardModel:
    return train_reward(world.judge, CONFIG, epochs=6, history_samples=2000, seed=3)


def test_measures_by_hand() -> None:
    values = np.array([1.0, 3.0, 2.0, 2.0])
    assert spearman(values, np.array([10.0, 90.0, 40.0, 40.0])) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    assert spearman(values, np.ones(4)) is None
    # Pairs (yes, no): 3 > 1, 3 > 2, 2 > 1, 2 = 2.
    assert auc(values, np.array([False, True, False, True])) == 3.5 / 4
    assert auc(values, np.zeros(4, bool)) is None


def test_counts_alone_order_what_differs_by_item(world: World) -> None:
    values, liked = item_values(world.judge), world.judge.past.labels > 0
    took = np.bincount(world.judge.past.items[liked], minlength=len(values)) > 0
    assert values[took].min() > values[~took].max()


def test_sessions_are_of_the_judges_users_after_the_split(world: World) -> None:
    later, earlier = world.judge_later, world.judge.sessions()
    assert len(later) == 2 * len(world.judge.past)
    assert {len(session.history.items) for session in later} == {26, 31}
    assert {len(session.history.items) for session in earlier} == {16, 21}


def test_a_trained_judge_is_above_chance(world: World, judge: RewardModel) -> None:
    found = quality(judge, world, CONFIG, most=200)
    assert found["sessions"] == 200
    assert found["vtr"]["auc"] > 0.8
    assert found["within_session"]["ordered"] > 0.8
    assert found["within_session"]["by_logistic_model"] > 0.8  # half of the items are nobody's
    assert found["vtr"]["spearman"] > 0.4
    assert found["swt"]["spearman"] > 0.4
    assert found["wtr"] == {"auc": None, "positives": 0}


def test_judge_ranks_what_users_took_to_above_random_items(world: World, judge: RewardModel) -> None:
    random = np.random.default_rng(4)
    took, other = [], []
    for truth in world.cases.truth:
        liked = sorted(truth)
        took.append([liked] if len(liked) == 5 else [random.choice(liked or [0], 5)])
        other.append([random.permutation(len(world.rows.items.item_ids))[:5]])
    right = judged(judge, world, CONFIG, np.array(took))["vtr"][:, 0]
    wrong = judged(judge, world, CONFIG, np.array(other))["vtr"][:, 0]
    some = np.array([bool(truth) for truth in world.cases.truth])
    assert (right > wrong)[some].mean() > 0.8
