"""The main job, short: the whole loop on the real log, and what its report promises."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.packed import pack_floats
from schemas.records import Item
from schemas.topics import ITEMS, id_key

ROOT = Path(__file__).parents[1]
EVENTS = 1_500
FIELDS = {
    "events_produced", "sessions", "sessions_trained", "requests", "recommendations", "unanswered", "invalid_items",
    "duplicate_items_in_session", "versions_published", "swaps", "dead_letters", "preference_pairs", "pairs_trained",
    "lost", "duplicated", "freshness_s", "request_latency_ms", "loss", "reward", "prequential", "wall_s",
    "peak_rss_mb", "broker", "audit", "reproduced",
}  # fmt: skip


@contextmanager
def demo(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONEREC_")}
    with subprocess.Popen(
        [sys.executable, "-m", "onerec", "demo", "--directory", str(directory), *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def recommend_an_item_published_now(config: Path, process: subprocess.Popen[str]) -> int:
    """Publish an item with a tag of its own and ask for that tag until it comes; how often it was not there yet."""
    kafka = KafkaSettings(**tomllib.loads(config.read_text())["kafka"])
    item = Item(
        item_id=10_000_000, embedding=pack_floats([0.1] * 64), duration_ms=15_000, author_id=-1,
        tags=("published just now",), created_ms=1_650_850_000_000,
    )  # fmt: skip
    writer = RecordWriter(kafka)
    writer.send(ITEMS, id_key(item.item_id), item)
    writer.flush(60.0)
    answers: list[dict[str, Any]] = []

    def came() -> bool:
        command = ["recommend", "712", "--tags", item.tags[0], "--items", "1", "--json", "--timeout", "60", "--config"]
        asked = subprocess.run(
            [sys.executable, "-m", "onerec", *command, str(config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        answers.append(json.loads(asked.stdout) if asked.returncode == 0 else {"ranked": []})
        return [ranked["item_id"] for ranked in answers[-1]["ranked"]] == [item.item_id]

    until(came, process)
    return len(answers) - 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_loop_closes_nothing_is_lost_and_a_new_item_is_recommended_at_once(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with demo(
        tmp_path / "run", "--events", str(EVENTS), "--seed-seconds", "12", "--report", str(file)
    ) as process:  # fmt: skip
        until(lambda: "ready: partitions" in text(tmp_path / "run/logs/worker.log"), process)
        refused = recommend_an_item_published_now(tmp_path / "run/onerec.toml", process)
        output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    report = json.loads(file.read_text())
    assert set(report) >= FIELDS
    assert report["events_produced"] == EVENTS
    for nothing in ("lost", "duplicated", "overloaded", "invalid_items", "duplicate_items_in_session"):
        assert report[nothing] == 0, nothing
    assert report["unanswered"] == refused
    assert report["sessions"] == report["sessions_trained"] > 0
    assert report["requests"] == report["recommendations"] > 0
    assert report["versions_published"] > 1
    assert report["swaps"] > 0
    assert report["preference_pairs"] > 0
    assert report["reward"]["chosen_mean"] > report["reward"]["rejected_mean"]
    assert report["reward"]["chosen_swt_mean"] > report["reward"]["rejected_swt_mean"]
    assert report["audit"] == {"lost": 0, "duplicated": 0, "wrong": 0}
    assert report["reproduced"]["identical"]
    assert report["reproduced"]["version"] > 1
    assert report["prequential"]["leaked"] == 0
    assert report["prequential"]["visits"] > 100
    assert 0 < report["freshness_s"]["p50"] <= report["freshness_s"]["p99"]
    assert "HitRate@10" in output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with demo(tmp_path / "run", "--events", "1000", "--seed-seconds", "60") as process:
        watched = psutil.Process(process.pid)
        until((tmp_path / "run/logs/trainer.log").exists, process)
        children = watched.children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert children
    assert process.returncode == 130, output
    assert "stopped" in output
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []
