"""The models M_0, M_1, ... of IPA, or of the control, by round.

Their reward is by the reward model that made the pairs and by the judge; Recall@10 is of the cases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.table1.accuracy import accuracy
from evaluation.table1.candidates import Recommended
from evaluation.table1.judge import judged
from evaluation.table1.world import World
from onerec.model.presets import ModelConfig
from onerec.model.reward import OBJECTIVES, RewardModel
from onerec.settings import RewardWeights

Predictions = dict[str, NDArray[np.float64]]


class Round(NamedTuple):
    """What M_t recommends for the cases, and the training reward model's predictions [C, N] by objective."""

    recommended: Recommended
    training: Predictions


def by_round(rounds: tuple[Round, ...], judge: RewardModel, world: World, config: ModelConfig) -> list[dict[str, Any]]:
    """For each round the mean of each objective over cases and candidates, and one reward, by each of the two models.

    The reward is the change of each objective since M_0, in standard deviations of M_0's candidates over all cases,
    weighed as where pairs are made.
    """
    by_judge = [judged(judge, world, config, one.recommended.sessions) for one in rounds]
    by_training = [one.training for one in rounds]
    return [
        {
            "round": t,
            "training": _figures(by_training, t),
            "judge": _figures(by_judge, t),
            "recall_at_10": accuracy(one.recommended.ranking, world.cases.truth)["recall_at_10"],
        }
        for t, one in enumerate(rounds)
    ]


def _figures(rounds: list[Predictions], t: int) -> dict[str, float]:
    weights, reward = RewardWeights().model_dump(), 0.0
    for name in OBJECTIVES:
        first, own = rounds[0][name], rounds[t][name]
        deviation = max(float(np.nanstd(first)), 1e-6)
        reward += weights[name] * float(np.nanmean(own) - np.nanmean(first)) / deviation
    return {name: float(np.nanmean(rounds[t][name])) for name in OBJECTIVES} | {"reward": reward}
