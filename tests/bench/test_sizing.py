"""Sizing: the arithmetic follows its figures and assumptions, and the command says what is missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.scaling.group import Group, table
from bench.sizing.__main__ import app
from bench.sizing.assumptions import Assumptions
from bench.sizing.figures import Figures, read
from bench.sizing.plan import gpus, plan
from bench.sizing.records import bytes_a_record
from onerec.errors import SettingsError
from onerec.model.presets import preset

FIGURES = Figures(100.0, 50_000.0, 50e9, 40e9, {})


def result(name: str, figure: float, conditions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "ours": figure, "conditions": {"cpu": "some", **(conditions or {})}}


RESULTS = [
    result("request_latency", 40.0, {"behind_kafka": {"capacity_per_s": 80.0}}),
    result("decode_beam32", 20.0, {"ours": {"flops_a_request": 5e9, "threads": 2}}),
    result("train_dense", 10.0, {"ours": {"flops_a_sample": 4e9, "threads": 2}}),
    result("joiner_flink", 60_000.0),
]


def test_ten_times_the_load_takes_ten_times_the_processes() -> None:
    small, assume = preset("small"), Assumptions()
    one, ten = (plan(rate, small, FIGURES, assume) for rate in (10_000, 100_000))
    assert one.workers == 200  # 10,000 over half of 100
    assert one.joiners == 5  # 101,000 events over half of 50,000, rounded up
    assert ten.workers == 2_000
    assert ten.ingress_mb_per_s == pytest.approx(10 * one.ingress_mb_per_s)
    assert one.partitions >= max(one.workers, one.joiners)
    assert one.brokers >= 3


def test_more_headroom_and_replicas_cost_more() -> None:
    small = preset("small")
    usual = plan(100_000, small, FIGURES, Assumptions())
    careful = plan(100_000, small, FIGURES, dataclasses.replace(Assumptions(), headroom=0.25, replicas=5.0))
    assert careful.workers == 2 * usual.workers
    assert careful.brokers > usual.brokers
    assert careful.trainer_ranks == pytest.approx(2 * usual.trainer_ranks, abs=1)


def test_gpus_follow_the_operations() -> None:
    assume = Assumptions()
    one, half_peak = gpus(400_000, assume), gpus(400_000, dataclasses.replace(assume, gpu_tflops=989.0 / 2))
    assert half_peak.serving == pytest.approx(2 * one.serving, abs=1)
    assert one.serving_tflop > one.training_tflop  # 128 beams against one taught path, forward and backward


def test_figures_are_those_of_one_core() -> None:
    figures = read(RESULTS)
    assert figures.worker_requests_per_s == 80.0
    assert figures.decode_flops_per_s == 50e9
    assert figures.train_flops_per_s == 20e9
    assert figures.joiner_events_per_s == 60_000.0


def test_missing_benches_are_named() -> None:
    with pytest.raises(SettingsError, match="train_dense"):
        read([one for one in RESULTS if one["name"] != "train_dense"])


def test_a_session_carries_its_history() -> None:
    short, long = bytes_a_record(50, 5, 10), bytes_a_record(256, 5, 10)
    assert long["sessions"] - short["sessions"] == pytest.approx(206 * 17, abs=8)
    assert long["impressions"] == short["impressions"]


def test_the_command_prints_plan_figures_and_assumptions(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(RESULTS))
    done = CliRunner().invoke(app, ["10000", "--bench", str(file), "--assume", "exposures=8"])
    assert done.exit_code == 0, done.output
    assert "| 10,000 | 161,600 |" in done.output
    assert "| exposures | 8 |" in done.output
    assert "joiner_flink" in done.output
    for wrong in (["--bench", str(tmp_path / "none.json")], ["--bench", str(file), "--assume", "colour=8"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2


def test_two_cores_allow_twice_the_rate_of_one_process() -> None:
    groups = [Group(1, 100.0, 9.0, 0.9), Group(2, 150.0, 10.0, 1.5), Group(4, 160.0, 12.0, 1.9)]
    rows = table(groups, cores=2)
    assert [row["of_linear"] for row in rows] == [1.0, 0.75, 0.8]
    assert [row["of_linear_cpu"] for row in rows] == [1.0, 0.9, 0.75]
