"""Trainings of the generative rows are chosen on a period that ends before the evaluated one begins."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.baselines.training import CPU
from evaluation.table1 import choices, choices_page
from evaluation.table1.choices import DEVELOPMENT_SPLIT_MS, Bench, KuaiRandBefore, with_something_to_find
from evaluation.table1.protocol import FULL, SPLIT_MS, GenerativeTraining
from evaluation.table1.trials import TRIALS, Trial
from onerec.model.presets import ModelConfig
from tests.evaluation.table1.small_world import CONFIG, small_world

ROWS = (
    Trial("onerec-s", GenerativeTraining(samples=128)),
    Trial("onerec-s", FULL.onerec),
    Trial("tiger-s", GenerativeTraining(samples=128, dropout=0.2)),
)


def test_the_log_for_choices_ends_where_the_evaluation_begins() -> None:
    exposures = KuaiRandBefore(lambda users: users >= 0).exposures()
    assert DEVELOPMENT_SPLIT_MS < int(exposures.times_ms.max()) < SPLIT_MS


def test_trials_are_kept_and_tell_what_they_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = list[str]()

    def development(_: ModelConfig) -> Any:
        made.append("world")
        return with_something_to_find(small_world())

    def tried(trial: Trial, *_: object) -> dict[str, Any]:
        figures = {"recall_at_10": 0.25 + 0.1 * trial.training.dropout, "ndcg_at_10": 0.1, "seconds": 1.0}
        return {"row": trial.row, **dataclasses.asdict(trial.training), **figures}

    monkeypatch.setattr(choices, "development", development)
    monkeypatch.setattr(choices, "tried", tried)
    monkeypatch.setattr(choices, "TRIALS", ROWS)
    found = choices.choose(tmp_path)
    assert json.dumps(choices.choose(tmp_path)) == json.dumps(found)
    assert made == ["world"]
    assert found["counts"][0]["cases"] == len(small_world().cases)
    table = choices_page.table(found)
    assert "| cooccurrence | - |" in table
    assert "| onerec-s | 128 | 0 | 2 to 0.25 |" in table
    assert f"| **onerec-s** | {FULL.onerec.samples:,} |" in table
    choices_page.write_paper(tmp_path / "paper.md", found)
    assert "28 April" in (tmp_path / "paper.md").read_text()


def test_a_trial_learns_something() -> None:
    bench = Bench(with_something_to_find(small_world()), CONFIG, CPU)
    found = [
        choices.tried(Trial("onerec-s", GenerativeTraining(samples=samples, dropout=0.1)), bench)
        for samples in (1, 2048)
    ]
    assert found[1]["recall_at_10"] > found[0]["recall_at_10"] + 0.1


def test_what_the_full_form_takes_was_tried() -> None:
    for row, taken in (("onerec-l", FULL.onerec), ("tiger-l", FULL.tiger)):
        assert Trial(row, taken) in TRIALS
