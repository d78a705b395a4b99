"""The clock that never goes back."""

from __future__ import annotations

import logging
import time

import pytest

from onerec import clock
from onerec.clock import ANY_TIME_MS, Clock, held_against
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, ITEMS, MODEL_VERSIONS, REQUESTS, SESSIONS

HOUR_NS = 3_600 * 10**9


class Hands:
    """Both clocks of the machine, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_ns, self.monotonic_ns = 1_000 * HOUR_NS, 7 * HOUR_NS
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.monotonic_ns)

    def pass_s(self, seconds: int) -> None:
        self.wall_ns += seconds * 10**9
        self.monotonic_ns += seconds * 10**9


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


def test_is_the_wall_clock_while_that_goes_on(hands: Hands) -> None:
    ours = Clock()
    for seconds in (0, 1, 3_600):
        hands.pass_s(seconds)
        assert ours.now_ms() == hands.wall_ns // 1_000_000
    assert ours.behind_s() == 0


def test_goes_on_where_the_wall_clock_is_set_back(hands: Hands, caplog: pytest.LogCaptureFixture) -> None:
    ours = Clock()
    before_ms = ours.now_ms()
    hands.wall_ns -= 5 * HOUR_NS
    assert ours.now_ms() == before_ms
    hands.pass_s(60)
    assert ours.now_ms() == before_ms + 60_000
    assert ours.behind_s() == 5 * 3_600
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "the system clock was set back, by 18000 s in all: times of records are judged as if it had gone on"
    ]


def test_follows_the_wall_clock_forward_and_is_with_it_again_once_it_is_right(hands: Hands) -> None:
    ours = Clock()
    hands.wall_ns -= 5 * HOUR_NS
    ours.now_ms()
    hands.wall_ns += 5 * HOUR_NS
    assert ours.now_ms() == hands.wall_ns // 1_000_000
    hands.wall_ns += HOUR_NS
    assert ours.now_ms() == hands.wall_ns // 1_000_000
    assert ours.behind_s() == 0


def test_times_are_held_against_the_clock_where_records_come_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 17)
    assert {held_against(topic) for topic in (ITEMS, IMPRESSIONS, ACTIONS, REQUESTS)} == {17}
    assert {held_against(topic) for topic in (SESSIONS, HISTORIES, MODEL_VERSIONS)} == {ANY_TIME_MS}
