"""The schedule holds everything once, in order, with the disorder that was asked for and no other."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.labels import Label
from stream.replay.log import Exposures
from stream.replay.schedule import Disorder, Kind, Schedule, schedule
from stream.replay.visits import Visits, visits_of

EVENTS = 5_000


@pytest.fixture(scope="module")
def some(exposures: Exposures) -> Exposures:
    return exposures.window(None, EVENTS)


@pytest.fixture(scope="module")
def visits(some: Exposures) -> Visits:
    return visits_of(some)


def rows_of(plan: Schedule, kind: Kind) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = plan.kinds == kind
    order = np.argsort(plan.rows[chosen])
    return plan.rows[chosen][order], plan.times_ms[chosen][order], plan.due_ms[chosen][order]


def test_everything_is_there_once_in_time_order(some: Exposures, visits: Visits) -> None:
    plan = schedule(some, visits, Disorder())
    assert (np.diff(plan.times_ms) >= 0).all()
    assert np.array_equal(plan.times_ms, plan.due_ms)
    for kind in (Kind.IMPRESSION, Kind.VIEW):
        assert np.array_equal(rows_of(plan, kind)[0], np.arange(EVENTS))
    assert np.array_equal(rows_of(plan, Kind.REQUEST)[0], np.arange(len(visits.request_ids)))
    likes, times_ms, _ = rows_of(plan, Kind.LIKE)
    assert np.array_equal(likes, np.flatnonzero(some.labels & Label.LIKE))
    assert (times_ms >= some.times_ms[likes]).all()
    assert (times_ms <= some.times_ms[likes] + some.watch_ms[likes]).all()


def test_a_request_comes_a_second_before_its_visit(some: Exposures, visits: Visits) -> None:
    plan = schedule(some, visits, Disorder())
    _, asked_ms, _ = rows_of(plan, Kind.REQUEST)
    firsts = visits.positions == 0
    assert np.array_equal(asked_ms[visits.of_exposure[firsts]], some.times_ms[firsts] - 1000)


def test_views_end_after_watching_or_are_reported_before_the_window_closes(some: Exposures, visits: Visits) -> None:
    _, ended_ms, _ = rows_of(schedule(some, visits, Disorder()), Kind.VIEW)
    assert np.array_equal(ended_ms, some.times_ms + some.watch_ms)
    _, reported_ms, _ = rows_of(schedule(some, visits, Disorder(view_report_ms=100_000)), Kind.VIEW)
    assert (reported_ms - some.times_ms).max() == 100_000


def test_late_share_comes_after_the_window_and_the_rest_on_time(some: Exposures, visits: Visits) -> None:
    plan = schedule(some, visits, Disorder(late_share=0.1, window_ms=120_000, view_report_ms=100_000))
    rows, times_ms, due_ms = rows_of(plan, Kind.VIEW)
    late = due_ms > times_ms
    assert 0.08 < late.mean() < 0.12
    assert (due_ms[late] > some.times_ms[rows[late]] + 120_000).all()
    assert np.array_equal(due_ms[~late], times_ms[~late])
    assert np.array_equal(rows_of(plan, Kind.IMPRESSION)[2], some.times_ms)
    assert (np.diff(plan.due_ms) >= 0).all()


def test_shuffle_displaces_within_its_bound_and_never_requests(some: Exposures, visits: Visits) -> None:
    plan = schedule(some, visits, Disorder(shuffle_ms=60_000))
    displaced_ms = plan.due_ms - plan.times_ms
    assert displaced_ms.min() == 0
    assert 55_000 < displaced_ms.max() <= 60_000
    assert not displaced_ms[plan.kinds == Kind.REQUEST].any()
    assert (np.diff(plan.times_ms) < 0).any()


def test_equal_arguments_give_an_equal_schedule_and_another_seed_another(some: Exposures, visits: Visits) -> None:
    def dues(seed: int) -> list[int]:
        plan = schedule(some, visits, Disorder(seed=seed, shuffle_ms=5_000, late_share=0.1))
        return [int(due_ms) for due_ms in plan.due_ms]

    assert dues(1) == dues(1)
    assert dues(1) != dues(2)
    assert dues(-1) != dues(1)


def test_start_and_count_cut_the_log(exposures: Exposures) -> None:
    start_ms = int(exposures.times_ms[100_000])
    window = exposures.window(start_ms, 10)
    assert len(window) == 10
    assert window.times_ms[0] == start_ms
    assert len(exposures.window(start_ms, None)) >= 66_929
