"""What the online model has found, put in another order by counts that run on with the stream.

    score = log p(item | user) + a * log(popularity's share + 1/N) + b * log(co-occurrence's share + 1/N)

A share is an item's part of the sum over the catalogue of N items; 1/N keeps an item that was never counted from being
lost. The weights a and b are those of the highest NDCG@10 on the visits before the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.streaming.learner import Candidates
from evaluation.streaming.protocol import TOP, WITH_COUNTS, WITH_POPULARITY
from evaluation.streaming.stream import Timeline
from evaluation.streaming.study import counting
from onerec.settings import EvaluationSettings

POPULARITY_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
COOCCURRENCE_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """Logarithms of the smoothed shares of each candidate when its visit begins, float64 [V, BEAM]."""

    popularity: Floats
    cooccurrence: Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the logarithms; the log-probability's own is 1."""

    popularity: float
    cooccurrence: float


def shares_of(timeline: Timeline, candidates: Candidates, settings: EvaluationSettings) -> Shares:
    """Counted on through the stream; what is no candidate counts nothing."""
    items = len(timeline.catalogue)
    by_leaf = np.zeros((2, items + 1))  # the last for -1, no item
    leaves = np.empty(0, np.int64)
    found = np.zeros((2, *candidates.leaves.shape))
    for case, baselines in counting(timeline, settings):
        fresh = baselines.item_ids(len(leaves))
        if fresh:
            leaves = np.concatenate([leaves, timeline.catalogue.leaves(np.array(fresh, np.int64))])
        for kind, scores in enumerate(baselines.scores(int(timeline.cases.user_ids[case]))):
            by_leaf[kind, leaves] = scores
        by_leaf[:, -1] = 0
        total = by_leaf.sum(1, keepdims=True)
        found[:, case] = by_leaf[:, candidates.leaves[case]] / np.where(total > 0, total, 1)
    popularity, cooccurrence = np.log(found + 1 / items)
    return Shares(popularity, cooccurrence)


def order(candidates: Candidates, shares: Shares, weights: Weights) -> Longs:
    """Places of the TOP best candidates, [V, TOP]; equal ones stay as the model has them."""
    scores = candidates.log_probs + weights.popularity * shares.popularity + weights.cooccurrence * shares.cooccurrence
    return np.argsort(-scores, axis=1, kind="stable")[:, :TOP]


def gains(candidates: Candidates, truth: list[set[int]]) -> Floats:
    """NDCG's part of each candidate if it came first, [V, BEAM]: 0 for what the user did not like."""
    discounts = 1 / np.log2(np.arange(TOP) + 2)
    ideal = np.cumsum(discounts)[np.array([min(TOP, len(own)) - 1 for own in truth], np.int64)]
    liked = np.array(
        [[leaf in own for leaf in row] for row, own in zip(candidates.leaves.tolist(), truth, strict=True)], bool
    )
    return np.asarray(liked / ideal[:, None])


def mean_ndcg(gain: Floats, places: Longs) -> float:
    """NDCG@10 of candidates in this order; 0 of none."""
    if not len(gain):
        return 0.0
    return float((np.take_along_axis(gain, places, 1) / np.log2(np.arange(TOP) + 2)).sum(1).mean())


def reordered(
    timeline: Timeline, candidates: Candidates, settings: EvaluationSettings, from_ms: int
) -> tuple[dict[str, Longs], dict[str, Any]]:
    """Rankings [V, TOP] by popularity and by both counts, and what was chosen on the visits before `from_ms`."""
    shares = shares_of(timeline, candidates, settings)
    early = slice(0, int(np.searchsorted(timeline.cases.begin_ms, from_ms, side="left")))
    gain = gains(candidates.at(early), timeline.cases.truth[early])
    before = Shares(shares.popularity[early], shares.cooccurrence[early])
    rankings, chosen = {}, {}
    for name, cooccurrence in ((WITH_POPULARITY, (0.0,)), (WITH_COUNTS, COOCCURRENCE_WEIGHTS)):
        tried = {
            weights: mean_ndcg(gain, order(candidates.at(early), before, weights))
            for weights in (Weights(a, b) for b in cooccurrence for a in POPULARITY_WEIGHTS)
        }
        best = max(tried, key=lambda weights: tried[weights])
        rankings[name] = np.take_along_axis(candidates.leaves, order(candidates, shares, best), 1)
        chosen[name] = {
            "popularity": best.popularity,
            "cooccurrence": best.cooccurrence,
            "ndcg_before": round(tried[best], 5),
            "ndcg_before_of_the_model_alone": round(tried[Weights(0.0, 0.0)], 5),
        }
    return rankings, chosen
