"""A system clock that the test sets: of this process, or of processes that are started with its environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from onerec import clock

HOUR_S = 3_600
SITE = """
import time
from pathlib import Path

_right_ns = time.time_ns
_offset = Path(__file__).with_name("offset_s")


def _time_ns():
    return _right_ns() + int(_offset.read_text()) * 10**9


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
"""


class SteppedClock:
    """The wall clock of Python processes; the monotonic one goes on as it does."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._offset = folder / "offset_s"
        (folder / "sitecustomize.py").write_text(SITE)
        self.python_path = str(folder)
        self.set(0)

    def set(self, offset_s: int) -> None:
        """So far from the right time, from now on."""
        aside = self._offset.with_suffix(".part")
        aside.write_text(str(offset_s))
        os.replace(aside, self._offset)


class OwnClock:
    """The wall clock of this process. What the service's own clock has seen is forgotten with the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._right_ns = time.time_ns
        monkeypatch.setattr(clock, "_process", clock.Clock())

    def set(self, offset_s: int) -> None:
        """So far from the right time, from now on."""
        right_ns = self._right_ns
        self._monkeypatch.setattr(time, "time_ns", lambda: right_ns() + offset_s * 10**9)
        self._monkeypatch.setattr(time, "time", lambda: right_ns() / 1e9 + offset_s)

    def right_ms(self) -> int:
        """The right time."""
        return self._right_ns() // 1_000_000
