"""The baselines against counts by hand and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.baselines.cooccurrence import MAX_ITEMS, Cooccurrence, TooManyItemsError
from evaluation.baselines.popularity import DecayedPopularity
from evaluation.baselines.running import COMBINED, COOCCURRENCE, POPULARITY, Baselines
from evaluation.ranking import hit, ndcg
from evaluation.rows import ItemRows, best
from onerec.settings import EvaluationSettings

NOTHING = np.array([], dtype=np.int64)


def rows(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_hit_and_ndcg_by_hand() -> None:
    ranked = [5, 6, 7, 8]
    assert hit(ranked, {7}) == 1.0
    assert hit(ranked, {9}) == 0.0
    assert hit(range(20), {10}) == 0.0
    assert ndcg(ranked, {5}) == 1.0
    assert ndcg(ranked, {7}) == pytest.approx(1 / math.log2(4))
    assert ndcg(ranked, {6, 99}) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg(range(20), {10}) == 0.0
    assert ndcg(range(20), set(range(15))) == pytest.approx(1.0)


def test_best_leaves_out_the_excluded_and_what_scores_nothing() -> None:
    scores = np.array([0.0, 3.0, 1.0, 5.0, 1.0, 2.0])
    assert best(scores.copy(), 3, rows(3)).tolist() == [1, 5, 2]
    assert best(scores.copy(), 9, NOTHING).tolist() == [3, 1, 5, 2, 4]


def test_item_rows_go_both_ways() -> None:
    items = ItemRows()
    assert items.rows([70, 5, 70]).tolist() == [0, 1, 0]
    assert items.ids([1, 0]) == [5, 70]
    assert len(items) == 2


def test_popularity_halves_in_its_half_life() -> None:
    popularity = DecayedPopularity(half_life_ms=1000)
    for row, time_ms in ((0, 0), (0, 0), (0, 0), (1, 2000)):
        popularity.add(row, time_ms)
    scores = popularity.scores(3)
    assert scores[0] / scores[1] == pytest.approx(3 / 4)
    assert scores[2] == 0


def test_popularity_survives_a_thousand_half_lives_and_new_items() -> None:
    popularity = DecayedPopularity(half_life_ms=1000)
    for step in range(0, 3000, 3):
        popularity.add(step, step * 1000)
    scores = popularity.scores(3000)
    assert np.isfinite(scores).all()
    assert scores[2997] / scores[2994] == pytest.approx(8)


def test_cooccurrence_by_brute_force() -> None:
    generator = np.random.default_rng(0)
    histories = [generator.integers(0, 12, 6) for _ in range(20)]
    found = Cooccurrence(4)
    pairs, counts = np.zeros((12, 12)), np.zeros(12)
    for history in histories:
        found.add_history(history)
        for one in set(history.tolist()):
            counts[one] += 1
            for other in set(history.tolist()):
                pairs[one, other] += 1
    found.add(3, rows(1, 2, 1), weight=5)
    counts[3] += 1
    for one in (1, 2):
        pairs[one, 3] += 5
        pairs[3, one] += 5
    expected = sum(pairs[one] / np.sqrt(counts[one] * np.maximum(counts, 1)) for one in (1, 3, 3))
    assert found.scores(rows(1, 3, 3), 12) == pytest.approx(expected, rel=1e-5)


def test_cooccurrence_knows_nothing_of_new_items_and_refuses_too_many() -> None:
    found = Cooccurrence(2)
    found.add_history(rows(0, 1))
    assert found.scores(rows(9), 10).tolist() == [0.0] * 10
    with pytest.raises(TooManyItemsError):
        found.add(MAX_ITEMS, NOTHING, 1)


def test_nobody_is_recommended_what_they_were_shown() -> None:
    baselines = Baselines(EvaluationSettings())
    baselines.add_history(1, [10, 11, 12])
    baselines.add_history(2, [11, 12, 13])
    for user_id, item_id in ((3, 12), (3, 13), (2, 14)):
        baselines.learn(user_id, item_id, 1000, positive=item_id != 14)
    assert baselines.exposures_of(2) == 4
    assert baselines.exposures_of(99) == 0
    ranked = baselines.ranked(1)
    assert ranked[POPULARITY] == [13]
    assert set(ranked[COOCCURRENCE]) == {13, 14}
    assert ranked[COMBINED] == [13]
    assert set(baselines.ranked(99)[POPULARITY]) == {12, 13}
    assert baselines.ranked(99)[COOCCURRENCE] == []
