"""An ordering that must hold with margin: alignment raises the reward it learns from more than only going on does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evaluation.table1.generative import recommend_sessions, train_generative
from evaluation.table1.judge import predicted, train_reward
from evaluation.table1.preference import RECIPES, Aligner
from evaluation.table1.protocol import GenerativeTraining
from onerec.model.onerec import OneRec
from tests.evaluation.table1.small_world import CONFIG, FORM, small_world


@pytest.mark.slow
def test_aligned_rows_are_above_the_control_in_the_reward_they_learn_from() -> None:
    world = small_world()
    form = dataclasses.replace(FORM, preference_users=60, preference_steps=30, rounds=2)
    model = train_generative(world.rows, CONFIG, GenerativeTraining(samples=4096), seed=1)
    reward = train_reward(world.rows, CONFIG, epochs=3, history_samples=1024, seed=1)
    aligner = Aligner(model, reward, world, form, seed=1)

    def mean_reward(one: OneRec) -> float:
        sessions = recommend_sessions(one, world, form).sessions
        found = predicted(reward, world, world.rows.catalogue, CONFIG, sessions)
        return float(np.mean([np.nanmean(found[name]) for name in ("swt", "vtr")]))

    before = mean_reward(model)
    gained = {
        name: mean_reward(aligner.aligned(dataclasses.replace(RECIPES[name], weight=20 * RECIPES[name].weight)))
        - before
        for name in ("ntp", "dpo", "ipa")
    }
    assert gained["dpo"] > gained["ntp"] + 0.01
    assert gained["ipa"] > gained["ntp"] + 0.01
