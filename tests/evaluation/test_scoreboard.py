"""Means, paired differences and the growing window by hand."""

from __future__ import annotations

import math

import pytest

from evaluation.scoreboard import LIVE, Score, Scoreboard


def filled() -> Scoreboard:
    board = Scoreboard((LIVE, "other"), min_history=3)
    for time_ms, earlier, live, other in ((30, 3, 1, 0), (10, 9, 1, 1), (20, 50, 0, 0), (40, 2, 1, 0)):
        board.add(time_ms, earlier, {LIVE: Score(live, live / 2), "other": Score(other, other / 4)})
    return board


def test_headline_and_paired_differences() -> None:
    summary = filled().summary()
    assert summary["visits"] == 3
    assert summary["visits_with_a_positive"] == 4
    assert summary["hit_rate_at_10"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["other_ndcg_at_10"] == pytest.approx(1 / 12, abs=1e-4)
    paired = summary["paired"]["other"]
    assert paired["hit_rate"] == pytest.approx(1 / 3, abs=1e-4)
    # Differences 1, 0, 0: standard deviation sqrt(1/3), over the root of 3.
    assert paired["hit_rate_standard_error"] == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3), abs=1e-4)
    assert paired["ndcg"] == pytest.approx((0.5 + 0.25 + 0) / 3, abs=1e-4)


def test_the_series_is_the_mean_of_all_before_in_event_time() -> None:
    points = [
        (each["time_ms"], each["visits"], each["hit_rate_at_10"]["live"]) for each in filled().summary()["series"]
    ]
    assert points == [(10, 1, 1.0), (20, 2, 0.5), (30, 3, pytest.approx(2 / 3, abs=1e-4))]


def test_buckets_hold_each_visit_once() -> None:
    buckets = {row["earlier_exposures"]: row for row in filled().summary()["by_history"]}
    assert {name: row["visits"] for name, row in buckets.items()} == {
        "0-2": 1,
        "3-9": 2,
        "10-24": 0,
        "25-49": 0,
        "50+": 1,
    }
    assert buckets["3-9"]["hit_rate_at_10"] == {"live": 1.0, "other": 0.5}


def test_a_system_that_never_answers_is_left_out() -> None:
    board = Scoreboard((LIVE, "frozen"), min_history=0)
    board.add(1, 0, {LIVE: Score(1, 1)})
    summary = board.summary()
    assert (summary["visits"], summary["hit_rate_at_10"], summary["frozen_hit_rate_at_10"]) == (1, 1.0, None)
    assert summary["paired"] == {}
    assert board.rates() == {LIVE: Score(1.0, 1.0)}


def test_nothing_yet() -> None:
    summary = Scoreboard((LIVE,), min_history=0).summary()
    assert (summary["visits"], summary["hit_rate_at_10"], summary["series"]) == (0, None, [])
