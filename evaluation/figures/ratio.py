"""Figure 4: the share of samples that bring a preference pair, against the reward of users nobody has aligned.

As in the paper's Algorithm 2 each sample of a batch brings a pair with probability r, and every pair weighs the same:
the preference loss in the gradient grows with r. All ratios start from one model, learn from pairs mined of it once,
and take the same steps over the same next-token samples; at r = 0 only these are left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.table1.accuracy import accuracy
from evaluation.table1.generative import recommend_sessions
from evaluation.table1.judge import judged, predicted
from evaluation.table1.kept import Context, judge_of, onerec_of, reward_of
from evaluation.table1.preference import Aligner, Recipe
from onerec.model.reward import OBJECTIVES
from onerec.settings import RewardWeights


class Ratios:
    """Points of the figure; the pairs are mined for the first and serve all."""

    def __init__(self, at: Context) -> None:
        self._at = at
        self._reward = reward_of(at)
        self._aligner = Aligner(onerec_of(at), self._reward, at.world, at.form, at.seed)

    def point(self, ratio: float) -> dict[str, Any]:
        """Means and deviations of each objective over cases and candidates, by both reward models, and Recall@10."""
        at = self._at
        model = self._aligner.aligned(Recipe(loss="dpo", ratio=ratio))
        found = recommend_sessions(model, at.world, at.form)
        judge = judge_of(at.folder, at.world, at.form, at.config, at.device)
        by_model = {
            "training": predicted(self._reward, at.world, at.world.rows.catalogue, at.config, found.sessions),
            "judge": judged(judge, at.world, at.config, found.sessions),
        }
        figures: dict[str, Any] = {
            model: {name: [float(np.nanmean(own[name])), float(np.nanstd(own[name]))] for name in OBJECTIVES}
            for model, own in by_model.items()
        }
        return figures | {"ratio": ratio, **accuracy(found.ranking, at.world.cases.truth)}


def rewards(points: list[dict[str, Any]], model: str) -> list[float]:
    """One reward a point: the change of each objective since the first, in its deviations there, weighed and summed."""
    weights, first = RewardWeights().model_dump(), points[0][model]
    return [
        sum(weights[name] * (point[model][name][0] - first[name][0]) / max(first[name][1], 1e-6) for name in OBJECTIVES)
        for point in points
    ]
