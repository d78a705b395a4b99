"""Orderings of the study that must hold, with margin, where taste changes every day: no figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from evaluation.baselines.running import POPULARITY
from evaluation.streaming import report
from evaluation.streaming.protocol import BEGIN_MS, DAILY, DAY_MS, FROZEN, ONLINE, WITH_POPULARITY, Form, Recipe
from evaluation.streaming.run import run
from evaluation.streaming.stream import load
from onerec.model.presets import preset
from onerec.settings import JoinerSettings
from tests.evaluation.streaming.drifting import DAYS, DriftingLog

FORM = Form(
    name="drifting",
    users_of=1,
    from_ms=BEGIN_MS + DAY_MS,
    end_ms=BEGIN_MS + DAYS * DAY_MS,
    samples=256,
    recipe=Recipe(batch=8, wait_s=1_800, learning_rate=5e-3, batch_epochs=2, batch_learning_rate=5e-3),
)
CONFIG = dataclasses.replace(preset("tiny"), codes=16, session_items=5, history_items=16)


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.streaming.run.load", lambda *_: load(FORM, CONFIG, JoinerSettings(), DriftingLog()))
        place: Path = run(FORM, [1], tmp_path_factory.mktemp("streaming"), config=CONFIG)
    systems = report.summarise(place, FORM)["systems"]
    return {system: figures["hit_rate_at_10"]["mean"] for system, figures in systems.items()}


def test_who_learns_within_the_day_finds_what_is_liked_today(rates: dict[str, float]) -> None:
    for late in (FROZEN, DAILY, "sync 1 day"):
        assert rates[ONLINE] > rates[late] + 0.2, rates


def test_weights_that_wait_longer_find_less(rates: dict[str, float]) -> None:
    assert rates[ONLINE] >= rates["sync 30 s"] - 0.01
    assert rates["sync 1 h"] > rates["sync 1 day"] + 0.1


def test_counts_that_run_on_help_a_model_that_lags(rates: dict[str, float]) -> None:
    assert rates[POPULARITY] > 0.5
    assert rates[WITH_POPULARITY] > rates[ONLINE] - 0.02
