"""What of the order within a session is to be had without knowing the user: the mark that the judge is held against.

A logistic model of an item's share of long views, its exposures and its length, all from the judge's users before the
split, fitted on pairs of one session of theirs: one viewed long, one not. Users and everything they do apart from it
cancel out in such a pair. On this log the items tell little more than that, so a judge near this mark has learned what
there is to learn of items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.sequences import Longs, Sequences
from evaluation.table1.world import Side
from schemas.labels import Label
from trainer.batches import SessionRow

PRIOR = 20.0
"""Exposures at the mean share of long views that every item is given."""
RIDGE = 1e-3
STEPS = 25

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]


def item_values(side: Side) -> Values:
    """By leaf what the model says of an item, float64 [N]: higher is viewed long more often.

    Zero where no session has a pair to learn from. To fit, items are counted in the histories alone, which the
    sessions of the log are no part of; the values returned count all before the split.
    """
    sessions = side.sessions()
    pairs = _pairs(_features(side, side.past.watch_ms < 0), sessions)
    features = _features(side, np.ones(len(side.past.items), bool))
    return features @ _fitted(pairs) if len(pairs) else np.zeros(len(features))


def is_long(session: SessionRow) -> Bools:
    """Which exposures were viewed long, bool [m]."""
    found: Bools = (session.labels & int(Label.LONG_VIEW)) != 0
    return found


def _features(side: Side, counted: Bools) -> Values:
    """[N, 4]: log-odds of a long view, log exposures, log length and its square, standardised over the items."""
    rate, count = long_view_rate(side.past, counted, len(side.items.item_ids))
    length = np.log1p(side.catalogue.durations_ms / 1000.0)
    columns = np.stack([np.log(rate / (1.0 - rate)), np.log1p(count), length, length**2], axis=1)
    standard: Values = (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-9)
    return standard


def long_view_rate(past: Sequences, counted: Bools, items: int) -> tuple[Values, Values]:
    """Of every item the share of long views, drawn towards the mean, and its exposures."""
    leaves, long = past.items[counted], (past.labels[counted] & int(Label.LONG_VIEW)) != 0
    count = np.bincount(leaves, minlength=items).astype(np.float64)
    viewed = np.bincount(leaves[long], minlength=items)
    mean = (viewed.sum() + 1.0) / (count.sum() + 2.0)
    rate: Values = (viewed + PRIOR * mean) / (count + PRIOR)
    return rate, count


def _pairs(features: Values, sessions: Sequence[SessionRow]) -> Values:
    """Differences [P, 4] of an exposure viewed long and one that was not, for all such pairs of one session."""
    found = [np.empty((0, features.shape[1]))]
    for session in sessions:
        long, own = is_long(session), features[_leaves(session)]
        found.append((own[long][:, None] - own[~long][None]).reshape(-1, features.shape[1]))
    return np.concatenate(found)


def _leaves(session: SessionRow) -> Longs:
    leaves: Longs = session.leaves
    return leaves


def _fitted(pairs: Values) -> Values:
    """Weights that make the differences positive: Newton's method on the logistic loss with a small ridge."""
    weights = np.zeros(pairs.shape[1])
    for _ in range(STEPS):
        wrong = 1.0 / (1.0 + np.exp(pairs @ weights))
        gradient = pairs.T @ wrong / len(pairs) - RIDGE * weights
        curvature = (pairs * (wrong * (1.0 - wrong))[:, None]).T @ pairs / len(pairs) + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights
