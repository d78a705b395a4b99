"""The frame of the benches: what a bound says, what an object holds, what takes turns, what fell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.bench import Bench, Bound, Context, Measured
from bench.benches import REGISTRY
from bench.comparison import compare
from bench.document import PAGE, README, SHOWN, WHAT, filled, with_benches, with_stages
from bench.environments import PeerMissingError
from bench.run import chosen, run
from bench.turns import ROOT, SideProcess, Spec, in_turn
from inference.worker.stages import STAGES
from onerec.errors import CheckFailedError, SettingsError

KEYS = ["name", "ours", "peer", "unit", "ratio", "share_of_limit", "target", "met", "conditions"]
SIDE = "tests.bench.sides:Counting"


def bench(*bounds: Bound, measured: Measured | None = None, error: Exception | None = None) -> Bench:
    def measure(_context: Context) -> Measured:
        if error is not None:
            raise error
        assert measured is not None
        return measured

    return Bench("some", "something", "s", bounds, measure)


def test_a_target_is_met_missed_or_unknown() -> None:
    both = bench(Bound("ratio", ">=", 10.0), Bound("pause_ms", "<=", 5.0))
    for ratio, pause, met in ((10.0, 5.0, True), (9.9, 5.0, False), (12.0, None, None), (9.0, None, False)):
        found = both.result(Measured(1.0, 2.0, ratio, figures={"pause_ms": pause}), {})
        assert found["met"] is met
        assert list(found) == KEYS


def test_with_amx_other_shares_count() -> None:
    one = bench(Bound("share_of_limit", ">=", 0.75, 0.50))
    found = Measured(1.0, None, None, share_of_limit=0.6)
    assert one.result(found, {"features": "avx2"})["met"] is False
    with_amx = one.result(found, {"features": "avx2, amx_bf16"})
    assert with_amx["met"] is True
    assert with_amx["target"] == "share_of_limit >= 0.5"


def test_what_cannot_be_measured_has_no_figures_but_a_reason(tmp_path: Path) -> None:
    found = run(
        bench(Bound("ratio", ">=", 2.0), error=PeerMissingError("No Java.", "Install it.")),
        directory=tmp_path,
        threads=1,
        brief=True,
    )
    assert [found[key] for key in ("ours", "peer", "ratio", "met")] == [None] * 4
    assert found["conditions"]["reason"] == "No Java. Install it."
    assert found["conditions"]["cpu"]


def test_a_missing_peer_leaves_our_own_figure(tmp_path: Path) -> None:
    context = Context(tmp_path, threads=1, brief=True)
    found = compare(context, Spec(SIDE), PeerMissingError("No peer.", "Install it."))
    assert list(found) == ["ours"]
    assert found.conditions()["reason"] == "No peer. Install it."


def test_sides_take_turns_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    specs = [Spec(SIDE, {"name": name, "journal": str(journal)}, threads=3) for name in ("one", "two")]
    with SideProcess("one", specs[0], tmp_path) as one, SideProcess("two", specs[1], tmp_path) as two:
        found = in_turn([one, two], repeats=3, budget_s=60.0)
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert [line[:2] for line in lines] == [
        [name, edge] for name in ("one", "two", "two", "one", "one", "two") for edge in ("begins", "ends")
    ]
    assert len({line[2] for line in lines}) == 2
    assert [series.median() for series in found] == [2.0, 2.0]
    assert found[0].spread() == 1.0
    assert found[0].facts["threads"] == "3"


def test_no_round_begins_after_the_budget_but_the_first(tmp_path: Path) -> None:
    with SideProcess("one", Spec(SIDE), tmp_path) as one:
        assert len(in_turn([one], repeats=50, budget_s=0.0)[0].turns) == 1


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    side = SideProcess("bad", Spec(SIDE, {"fails": True}), tmp_path)
    with pytest.raises(CheckFailedError, match="this side cannot"), side:
        pass


def test_what_fell_by_more_than_a_tenth_is_marked() -> None:
    results = [bench().result(Measured(1.0, 1.0, ratio), {"features": "avx2"}) for ratio in (8.9, 9.1)]
    baseline = {"avx2": {"some": 10.0}}
    assert report.fallen(results[:1], baseline) == {"some": pytest.approx(0.89)}
    assert report.fallen(results[1:], baseline) == {}
    assert report.fallen(results[:1], {"avx512_bf16": {"some": 10.0}}) == {}


def test_a_baseline_keeps_what_was_not_run_and_takes_no_brief_figures(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text('{"avx2": {"other": 3.0}}')
    result = bench().result(Measured(1.0, 1.0, 2.0), {"features": "avx2"})
    report.keep([result], file)
    assert report.read_baseline(file) == {"avx2": {"other": 3.0, "some": 2.0}}
    result["conditions"]["brief"] = "yes"
    with pytest.raises(SettingsError, match="Brief"):
        report.keep([result], file)
    file.write_text("[]")
    with pytest.raises(SettingsError, match="no baseline"):
        report.read_baseline(file)


def test_names_are_unique_and_an_unknown_one_is_refused() -> None:
    names = [one.name for one in REGISTRY]
    assert len(names) == len(set(names))
    assert [one.name for one in chosen(names[1:3])] == names[1:3]
    with pytest.raises(SettingsError, match="nothing-of-the-kind"):
        chosen(["nothing-of-the-kind"])


def test_the_command_lists_the_benches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].startswith("decode_beam32: ")


def test_the_page_takes_its_figures_from_the_objects() -> None:
    result = bench(Bound("ratio", ">=", 2.0)).result(Measured(12.0, 4.0, 3.0, 0.5), {"cpu": "some CPU"})
    page = filled("before\n<!-- measured: x -->\nold\n<!-- /measured -->\nafter\n", [result])
    assert "| some | 12 | 4 | s | 3 | 50% | ratio >= 2 | yes |" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_the_shipped_baseline_can_be_read() -> None:
    report.read_baseline()
    assert json.loads(report.BASELINE.read_text()) is not None


def test_the_pages_hold_the_figures_of_the_kept_run() -> None:
    results = json.loads((ROOT / "docs" / "bench.json").read_text())
    assert filled(PAGE.read_text(), results) == PAGE.read_text()
    readme = with_benches(README.read_text(), results)
    assert readme == README.read_text()
    assert all(what in readme for what in SHOWN.values())


def test_the_page_tells_a_request_by_stages() -> None:
    behind = {
        "stages_ms": {stage: {"mean": 2.0, "p99": 9.0} for stage in WHAT},
        "requests": 1_000,
        "capacity_per_s": 100.0,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "broker": "some",
    }
    result = {"name": "request_latency", "conditions": {"behind_kafka": behind, "cpu": "fast"}}
    page = PAGE.read_text()
    told = with_stages(page, [result])
    assert "| queued | 2.0 | 17% | 9 |" in told
    assert "1,000 requests at half of the 100 a second" in told
    assert with_stages(page, [{"name": "codec", "conditions": {}}]) == page


def test_every_stage_of_a_request_is_explained() -> None:
    assert tuple(WHAT) == STAGES
