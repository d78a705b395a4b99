"""The main job, short: the whole loop on the real log, and what its report promises."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
EVENTS = 1_500
FIELDS = {
    "events_produced", "sessions", "sessions_trained", "requests", "recommendations", "unanswered", "invalid_items",
    "duplicate_items_in_session", "versions_published", "swaps", "dead_letters", "preference_pairs", "pairs_trained",
    "lost", "duplicated", "freshness_s", "request_latency_ms", "loss", "reward", "prequential", "wall_s",
    "peak_rss_mb", "broker",
}  # fmt: skip


def demo(directory: Path, *options: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEREC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "onerec", "demo", "--directory", str(directory), *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_loop_closes_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    process = demo(tmp_path / "run", "--events", str(EVENTS), "--seed-seconds", "12", "--report", str(file))
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    report = json.loads(file.read_text())
    assert set(report) >= FIELDS
    assert report["events_produced"] == EVENTS
    for nothing in ("lost", "duplicated", "unanswered", "invalid_items", "duplicate_items_in_session"):
        assert report[nothing] == 0, nothing
    assert report["sessions"] == report["sessions_trained"] > 0
    assert report["requests"] == report["recommendations"] > 0
    assert report["versions_published"] > 1
    assert report["swaps"] > 0
    assert report["preference_pairs"] > 0
    assert report["reward"]["chosen_mean"] > report["reward"]["rejected_mean"]
    assert report["reward"]["chosen_swt_mean"] > report["reward"]["rejected_swt_mean"]
    assert report["prequential"]["leaked"] == 0
    assert report["prequential"]["visits"] > 100
    assert 0 < report["freshness_s"]["p50"] <= report["freshness_s"]["p99"]
    assert "HitRate@10" in output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    process = demo(tmp_path / "run", "--events", "1000", "--seed-seconds", "60")
    watched = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not (children := watched.children(recursive=True)) or not (tmp_path / "run/logs/trainer.log").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped" in output
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
