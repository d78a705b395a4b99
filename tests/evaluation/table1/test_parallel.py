"""Rows side by side in processes: the same figures, in an order that waits for models, and an end when time is up."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.table1.jobs import Bench, Job, apart, planned
from evaluation.table1.kept import JUDGE_WEIGHTS, onerec_weights
from evaluation.table1.parallel import side_by_side
from evaluation.table1.run import run
from onerec.errors import CheckFailedError, SettingsError
from onerec.model.reward import OBJECTIVES
from tests.evaluation.table1.small_world import CONFIG, FORM, small_world

ROWS = ("popularity", "cooccurrence")
CPU = torch.device("cpu")


def figures(place: Path, row: str, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / f"{row}.{seed}.json").read_text())
    return {name: found[name] for name in (*OBJECTIVES, "recall_at_10", "ndcg_at_10")}


def test_processes_make_what_one_makes(tmp_path: Path) -> None:
    one, several = (
        run(
            FORM,
            [1, 2],
            tmp_path / str(count),
            only=ROWS,
            config=CONFIG,
            load_world=lambda *_: small_world(),
            processes=count,
        )
        for count in (1, 2)
    )
    for row in ROWS:
        for seed in (1, 2):
            assert figures(several, row, seed) == figures(one, row, seed)
    assert (several / "judge.json").is_file()


def test_time_that_is_up_leaves_rows_to_the_next_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(small_world(), FORM, CONFIG, tmp_path, CPU)
    jobs = planned(tmp_path, [1], frozenset(["onerec-l", "onerec-l-ipa"]))
    with caplog.at_level(logging.WARNING):
        side_by_side(jobs, bench, 2, time.monotonic() + 0.01)
    assert "time is up; left to a later run: " in caplog.text
    assert "onerec-l-ipa, seed 1" in caplog.text
    assert not list(tmp_path.glob("*.1.json"))


def test_a_job_that_fails_is_tried_again_and_told_after_all_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(small_world(), FORM, CONFIG, tmp_path, CPU)
    (tmp_path / JUDGE_WEIGHTS).write_bytes(b"no weights")
    (tmp_path / "judge.json").write_text("{}")
    with pytest.raises(CheckFailedError, match="These failed: popularity, seed 1"):
        side_by_side(planned(tmp_path, [1], frozenset(["popularity"])), bench, 2, None)
    assert "popularity, seed 1 failed: once more, later" in caplog.text
    assert "popularity, seed 1 failed again" in caplog.text


def test_models_come_first_and_rows_name_what_they_need(tmp_path: Path) -> None:
    rows = frozenset(["onerec-l", "onerec-l-ntp", "onerec-l-dpo", "onerec-l-ipa", "sasrec", "tiger-l"])
    jobs = apart(planned(tmp_path, [1, 2], rows), tmp_path)
    assert [(job.model, job.seed) for job in jobs[:5]] == [
        ("judge", 0),
        ("onerec-l", 1),
        ("onerec-l", 2),
        ("reward", 1),
        ("reward", 2),
    ]
    assert [set(job.rows) for job in jobs[5:]] == [
        {"onerec-l-ipa"},
        {"onerec-l-ntp", "onerec-l-dpo"},
        {"onerec-l"},
        {"onerec-l-ipa"},
        {"onerec-l-ntp", "onerec-l-dpo"},
        {"onerec-l"},
        {"tiger-l"},
        {"tiger-l"},
        {"sasrec"},
        {"sasrec"},
    ]
    assert jobs[5].needs == {onerec_weights(1), "reward.1.safetensors"}
    assert jobs[7].needs == {onerec_weights(1)}
    assert jobs[-1].needs == frozenset()
    (tmp_path / onerec_weights(1)).touch()
    (tmp_path / JUDGE_WEIGHTS).touch()  # but nobody has yet said how good it is
    left = apart(planned(tmp_path, [1, 2], rows), tmp_path)
    assert Job(1, model="onerec-l") not in left
    assert Job(0, model="judge") in left


def test_a_device_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SettingsError, match="no CUDA device"):
        run(
            FORM,
            [1],
            tmp_path,
            only=ROWS,
            config=CONFIG,
            load_world=lambda *_: small_world(),
            device=torch.device("cuda"),
        )
