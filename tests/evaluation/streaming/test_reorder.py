"""Another order of what the model has found, by counts as they were when the visit began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.ranking import ndcg
from evaluation.streaming.learner import Candidates
from evaluation.streaming.protocol import BEAM, BEGIN_MS, TOP, WITH_COUNTS, WITH_POPULARITY
from evaluation.streaming.reorder import Shares, Weights, gains, mean_ndcg, order, reordered, shares_of
from onerec.settings import EvaluationSettings
from schemas.labels import Label
from tests.evaluation.streaming.small_stream import FORM, timeline

SETTINGS = EvaluationSettings()


def candidates(seed: int = 1) -> Candidates:
    """Items at random, those of the last visits with none in the last places."""
    random, found = np.random.default_rng(seed), Candidates.of(len(timeline().cases))
    for row in range(len(found.leaves)):
        count = BEAM if row < len(found.leaves) - 5 else 4
        found.leaves[row, :count] = random.choice(len(timeline().catalogue), count, replace=False)
        found.log_probs[row, :count] = -np.sort(random.exponential(1, count))
    return found


def test_order_is_the_models_without_weights_and_the_counts_with_large_ones() -> None:
    found = candidates()
    random = np.random.default_rng(2)
    shares = Shares(*np.log(random.random((2, *found.leaves.shape))))
    assert (order(found, shares, Weights(0, 0)) == np.arange(TOP)).all()
    assert (order(found, shares, Weights(0, 1e6))[0] == np.argsort(-shares.cooccurrence[0])[:TOP]).all()
    for weights in (Weights(1, 0), Weights(0, 1), Weights(1, 1)):
        last = np.take_along_axis(found.leaves, order(found, shares, weights), 1)[-1]
        assert (last[4:] == -1).all()
        assert sorted(last[:4]) == sorted(found.leaves[-1, :4])


def test_its_ndcg_is_the_reports() -> None:
    found, truth = candidates(), timeline().cases.truth
    mixed = [own | set(row[3::9].tolist()) for own, row in zip(truth, found.leaves, strict=True)]
    expected = [ndcg(row, own - {-1}) for row, own in zip(found.ranked.tolist(), mixed, strict=True)]
    places = np.tile(np.arange(TOP), (len(found.leaves), 1))
    assert mean_ndcg(gains(found, [own - {-1} for own in mixed]), places) == pytest.approx(np.mean(expected))


def test_counts_are_as_of_the_visits_beginning() -> None:
    """What people do later changes nothing."""
    found = candidates()
    middle = len(found.leaves) // 2
    later = timeline().exposures.times_ms > timeline().cases.begin_ms[middle]
    labels = np.where(later, Label.LIKE, timeline().exposures.labels).astype(np.uint8)
    turned = replace(timeline(), exposures=replace(timeline().exposures, labels=labels))
    one, other = shares_of(timeline(), found, SETTINGS), shares_of(turned, found, SETTINGS)
    assert np.array_equal(one.popularity[: middle + 1], other.popularity[: middle + 1])
    assert not np.array_equal(one.popularity[middle + 1 :], other.popularity[middle + 1 :])
    assert np.isfinite(one.cooccurrence).all()


def test_weights_are_chosen_on_the_visits_before_the_report() -> None:
    """Later visits have no say."""
    found, cases = candidates(), timeline().cases
    rankings, chosen = reordered(timeline(), found, SETTINGS, FORM.from_ms)
    assert set(rankings) == set(chosen) == {WITH_POPULARITY, WITH_COUNTS}
    for name, own in chosen.items():
        assert own["ndcg_before"] >= own["ndcg_before_of_the_model_alone"]
        assert rankings[name].shape == (len(cases), TOP)
    late = cases.begin_ms >= FORM.from_ms
    other = replace(
        timeline(),
        cases=replace(cases, truth=[set() if one else own for one, own in zip(late, cases.truth, strict=True)]),
    )
    assert reordered(other, found, SETTINGS, FORM.from_ms)[1] == chosen
    none = reordered(timeline(), found, SETTINGS, BEGIN_MS)[1]
    assert none[WITH_COUNTS]["popularity"] == none[WITH_COUNTS]["cooccurrence"] == 0
