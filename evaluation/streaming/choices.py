"""What was chosen, and how: recipes of the online training and of the daily batch on the visits before the report.

One seed. The daily batch is first refreshed at midnight between the days, so its recipes are compared on the second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.baselines.running import SYSTEMS
from evaluation.streaming import study
from evaluation.streaming.learner import seeded
from evaluation.streaming.protocol import BEGIN_MS, DAILY, DAY_MS, FROZEN, ONLINE, REPORT_MS, Form, Recipe
from evaluation.streaming.run import DEFAULT_FOLDER, Rankings, folder_of, kept, only_rankings, seed_file
from evaluation.streaming.stream import Timeline, load
from onerec.model.presets import ModelConfig, preset
from onerec.settings import EvaluationSettings, JoinerSettings
from trainer.state import TrainState

LOG = logging.getLogger(__name__)
SEED = 1
ONLINE_RECIPES = {
    "batch 64, rate 1e-4": Recipe(),
    "batch 64, rate 2e-4": Recipe(learning_rate=2e-4),
    "batch 16, rate 1e-4": Recipe(batch=16),
}
DAILY_RECIPES = {
    "1 pass, rate 1e-4": Recipe(),
    "2 passes, rate 1e-4": Recipe(batch_epochs=2),
    "2 passes, rate 2e-4": Recipe(batch_epochs=2, batch_learning_rate=2e-4),
}


def choose(form: Form, folder: Path = DEFAULT_FOLDER, *, config: ModelConfig | None = None) -> dict[str, Any]:
    """HitRate@10 and NDCG@10 of every recipe; what is there is not computed again."""
    before = replace(form, name=f"{form.name}-choices", from_ms=BEGIN_MS, end_ms=REPORT_MS, recipe=Recipe())
    place, own = folder_of(before, folder), config or preset("small")
    torch.set_num_threads(1)
    loaded: list[Timeline] = []

    def timeline() -> Timeline:
        if not loaded:
            loaded.append(load(before, own, JoinerSettings()))
        return loaded[0]

    def state(recipe: Recipe, *, daily: bool) -> TrainState:
        made = replace(before, recipe=recipe)
        return seeded(made, own, timeline(), SEED, seed_file(form, own, SEED, folder), daily=daily)

    def online(recipe: Recipe) -> Callable[[], Rankings]:
        def make() -> Rankings:
            systems = (ONLINE, FROZEN) if recipe == Recipe() else (ONLINE,)
            found = study.online(timeline(), state(recipe, daily=False), recipe, only=systems)
            return only_rankings({name: own.ranked for name, own in found.items()})

        return make

    def daily(recipe: Recipe) -> Callable[[], Rankings]:
        return lambda: only_rankings(study.daily(timeline(), state(recipe, daily=True), recipe))

    counts = kept(place, "counts", timeline, lambda: only_rankings(study.counts(timeline(), EvaluationSettings())))
    names = dict.fromkeys((*SYSTEMS, *study.POWERS.values()))
    found: dict[str, Any] = {"counts": {name: _means(counts, name) for name in names}}
    for kind, recipes, make, system in (
        ("online", ONLINE_RECIPES, online, ONLINE),
        ("daily", DAILY_RECIPES, daily, DAILY),
    ):
        for number, (name, recipe) in enumerate(recipes.items()):
            scores = kept(place, f"{kind}-{number}-{recipe.digest()}", timeline, make(recipe))
            second_day = timeline().cases.begin_ms >= BEGIN_MS + DAY_MS if kind == "daily" else slice(None)
            found.setdefault(kind, {})[name] = _means(scores, system, second_day)
            if f"{FROZEN}/hit" in scores:
                found["frozen"] = _means(scores, FROZEN)
            LOG.info("%s, %s: %s", kind, name, json.dumps(found[kind][name]))
    return found


def _means(scores: dict[str, Any], system: str, rows: Any = slice(None)) -> dict[str, float]:
    return {metric: round(float(np.mean(scores[f"{system}/{metric}"][rows])), 5) for metric in ("hit", "ndcg")}
