"""When a session was complete, by hand: both inputs' event times and the wall clocks of their producers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evaluation.completion import InputClock, due_ms
from onerec.settings import JoinerSettings
from schemas.records import ClosedBy, Session
from tests.schemas.examples import BY_TYPE

SESSION = BY_TYPE[Session]
JOINER = JoinerSettings(feedback_window_ms=100, session_gap_ms=500, allowed_lateness_ms=7)


@pytest.mark.parametrize(("closed_by", "waits_ms"), [(ClosedBy.FULL, 107), (ClosedBy.GAP, 507), (ClosedBy.IDLE, None)])
def test_what_a_session_waits_for_depends_on_what_closes_it(closed_by: ClosedBy, waits_ms: int | None) -> None:
    session = dataclasses.replace(SESSION, closed_by=closed_by)
    last_ms = session.items[-1].time_ms
    assert due_ms(session, JOINER) == (None if waits_ms is None else last_ms + waits_ms)


def test_a_gap_shorter_than_the_window_waits_for_the_window() -> None:
    short = JOINER.model_copy(update={"session_gap_ms": 10})
    session = dataclasses.replace(SESSION, closed_by=ClosedBy.GAP)
    assert due_ms(session, short) == session.items[-1].time_ms + 107


def test_both_inputs_must_have_come_so_far() -> None:
    clock = InputClock()
    for offset, (time_ms, produced_ms) in enumerate([(10, 1000), (30, 1010), (20, 1020), (40, 1030)]):
        clock.add("impressions", (0, offset), time_ms, produced_ms)
    for offset, (time_ms, produced_ms) in enumerate([(30, 1025), (41, 1500)]):
        clock.add("actions", (0, offset), time_ms, produced_ms)
    clock.add("impressions", (1, 0), 99, 2000)
    partitions, due = np.array([0, 0, 0, 0, 1]), np.array([10, 30, 31, 41, 50])
    assert clock.reached_ms(partitions, due).tolist() == [1025, 1025, 1500, -1, -1]
