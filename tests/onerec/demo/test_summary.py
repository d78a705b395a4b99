"""The page at the end of the demo, and the picture while it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from onerec.demo.loop import Progress
from onerec.demo.summary import print_summary
from onerec.demo.view import LoopView, PlainLines
from onerec.metrics import Samples

REPORT = Path(__file__).parents[3] / "docs" / "demo-report.json"
SIMULATED = {
    "visits": 1_700,
    "items_per_visit": 1.19,
    "watch_time_per_visit_s": 24.31,
    "by_quarter": [
        {"expected_watch_time_s": [21.26, 0.74], "long_view_share": 0.31, "different_items": 210},
        {"expected_watch_time_s": [23.47, 0.78], "long_view_share": 0.36, "different_items": 170},
    ],
    "likes_per_1000": 21.4,
    "follows_per_1000": 1.4,
}


def shown(what: Any) -> str:
    console = Console(file=io.StringIO(), width=140)
    if isinstance(what, dict):
        print_summary(what, console)
    else:
        console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report(**changes: Any) -> dict[str, Any]:
    waits = {"sample_freshness_s": {"p50": 1.0, "p99": None}}
    checks = {"audit": {"lost": 0, "duplicated": 0, "wrong": 0}, "reproduced": {"version": 9, "identical": True}}
    whole: dict[str, Any] = json.loads(REPORT.read_text()) | waits | checks | changes
    return whole


def test_a_replayed_log_is_foretold() -> None:
    text = shown(report())
    assert "exposures replayed" in text
    assert "HitRate@10 of 6,054 visits" in text
    assert "running co-occurrence" in text


def test_simulated_users_are_told_by_what_they_watched_and_compared_with_nothing() -> None:
    found = report(simulated=SIMULATED)
    del found["prequential"]
    text = shown(found)
    assert "exposures simulated" in text
    assert "1,700 simulated visits" in text
    assert "21.3 ± 0.7 → 23.5 ± 0.8 s" in text
    assert "31% → 36%" in text
    assert "210 → 170" in text
    assert "HitRate" not in text
    assert "co-occurrence" not in text
    few = shown(found | {"simulated": SIMULATED | {"by_quarter": []}})
    assert "last quarter" not in few


def test_the_picture_of_simulated_users_has_no_hit_rates() -> None:
    samples = Samples({"evaluation_simulated_visits": {(): 12.0}, "evaluation_simulated_watch_seconds": {(): 21.5}})
    text = shown(LoopView().render(Progress(simulated=True, samples=samples)))
    assert "12 simulated visits" in text
    assert "21.5 s" in text
    assert "HR@10" not in text
    assert "HR@10" in shown(LoopView().render(Progress()))


def test_where_there_is_no_terminal_each_moment_is_one_line() -> None:
    told = io.StringIO()
    lines = PlainLines(LoopView(), Console(file=told, width=60))
    lines(Progress("the seed model trains", samples=Samples({"trainer_seed_progress_ratio": {(): 0.31}})))
    flow = Samples({"stream_joiner_events_total": {(): 12_345.0}, "trainer_sessions_total": {(): 678.0}})
    lines(Progress("live: the log flows, the model learns while it serves", samples=flow))
    assert told.getvalue().splitlines() == [
        "    0 s  the seed model trains: 31 %",
        "    0 s  live: the log flows, the model learns while it serves: events joined 12,345, sessions learned 678",
    ]
