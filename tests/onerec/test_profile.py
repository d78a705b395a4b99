"""Profiles: torch's turns as a trace, a process sampled from outside, and what is said where that cannot be."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from onerec import tracing
from onerec.cli.app import app
from onerec.demo import profile
from onerec.demo.profile import Sampling
from onerec.errors import ExitCode
from onerec.tracing import TurnTrace

BUSY = """
import time
def counts_sheep():
    until = time.monotonic() + 120
    while time.monotonic() < until:
        sum(range(1000))
counts_sheep()
"""
DEADLINE_S = 60.0


def turns(trace: TurnTrace, count: int) -> None:
    for _ in range(count):
        with trace.turn("a turn"):
            torch.ones(8) @ torch.ones(8)


def test_some_turns_are_traced_and_the_rest_run_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracing.VARIABLE, str(tmp_path / "profile"))
    monkeypatch.setattr(tracing, "SKIPPED", 2)
    monkeypatch.setattr(tracing, "RECORDED", 3)
    trace = TurnTrace("trainer")
    turns(trace, 9)
    trace.close()
    with gzip.open(tmp_path / "profile/trainer.trace.json.gz", "rt") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"] if event.get("cat") == "user_annotation"]
    assert names.count("a turn") == 3


def test_without_the_variable_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    trace = TurnTrace("trainer")
    turns(trace, 50)
    trace.close()
    assert list(tmp_path.iterdir()) == []


def test_a_process_is_sampled_from_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        sampling = Sampling(tmp_path / "profile")
        sampling.begin({busy.pid: "joiner", 2**22 + 1: "nobody"})
        log, deadline_s = tmp_path / "profile/joiner.py-spy.log", time.monotonic() + DEADLINE_S
        while "Sampling process" not in log.read_text():
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        time.sleep(1.0)  # for some samples; fewer would do
        with caplog.at_level(logging.WARNING):
            files = sampling.end()
        busy.kill()
    if not files and "ermission" in log.read_text():
        pytest.skip(f"this kernel does not let one process look at another: {log.read_text()}")
    assert files == [sampling.file("joiner")]
    assert "counts_sheep" in {frame["name"] for frame in json.loads(files[0].read_text())["shared"]["frames"]}
    assert "no profile of nobody" in caplog.text


def test_a_demo_without_a_sampler_says_so_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    kept = tmp_path / "run/kept"
    kept.parent.mkdir()
    kept.write_text("")
    result = CliRunner().invoke(app, ["demo", "--profile", "--directory", str(kept.parent)])
    assert result.exit_code == ExitCode.DEPENDENCY_MISSING
    assert profile.REMEDY in result.output
    assert kept.exists()
