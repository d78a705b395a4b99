"""A bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from stream.replay.progress import event_time, progress


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    with progress("events", 200, Console(file=screen, force_terminal=True, width=120)) as report:
        report(200, "25 Apr 00:05")
    assert "200/200" in screen.getvalue()
    assert "25 Apr 00:05" in screen.getvalue()


def test_a_file_gets_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress("events", 200, Console(file=io.StringIO())) as report:
        report(100, "soon")
        report(200, "now")
    assert [record.getMessage().split(" records")[0] for record in caplog.records] == ["events: 200 of 200"]


def test_event_time_is_for_people() -> None:
    assert event_time(1_650_844_800_000) == "25 Apr 00:00"
