"""Wall-clock time that never goes back, for what a record's times are held against.

A machine's clock may be set back by hours while a service runs. Records that right clocks have stamped would then lie
in the future and be refused. So a service goes on counting by the monotonic clock from the latest wall-clock time that
it has seen. Durations are measured by the monotonic clock alone, and what is stamped on records is the wall clock's.
"""

from __future__ import annotations

import logging
import threading
import time

from prometheus_client import Gauge

from schemas.topics import INPUTS, Topic

LOG = logging.getLogger(__name__)
ANY_TIME_MS = 2**62
"""As the time now, makes every other one a past one."""
TOLD_MS = 1_000
"""Clocks are corrected by milliseconds all the time: only what is more is worth a line in the log."""


class Clock:
    """Milliseconds since 1970, from any thread. A new one knows nothing of what the clock did before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead_ms = _ahead_ms()
        """The most that the wall clock has been ahead of the monotonic clock."""
        self._told_ms = 0

    def now_ms(self) -> int:
        """The later one of the wall clock, and its latest time that was seen with what has passed since."""
        ahead_ms = _ahead_ms()
        with self._lock:
            self._ahead_ms = max(self._ahead_ms, ahead_ms)
            behind_ms = self._ahead_ms - ahead_ms
            if abs(behind_ms - self._told_ms) > TOLD_MS:
                self._tell(behind_ms)
            return time.monotonic_ns() // 1_000_000 + self._ahead_ms

    def behind_s(self) -> float:
        """How far the wall clock is behind this one, in seconds."""
        return (self._ahead_ms - _ahead_ms()) / 1000

    def _tell(self, behind_ms: int) -> None:
        if behind_ms > self._told_ms:
            LOG.warning(
                "the system clock was set back, by %.0f s in all: times of records are judged as if it had gone on",
                behind_ms / 1000,
            )
        else:
            LOG.info("the system clock came forward again and is %.0f s behind", behind_ms / 1000)
        self._told_ms = behind_ms


def _ahead_ms() -> int:
    return time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000


_process = Clock()
BEHIND = Gauge("onerec_clock_behind_seconds", "How far the system clock was set back since the service started.")
BEHIND.set_function(lambda: max(0.0, _process.behind_s()))
_FROM_OUTSIDE = frozenset(topic.name for topic in INPUTS)


def now_ms() -> int:
    """The time by this process's clock that never goes back."""
    return _process.now_ms()


def held_against(topic: Topic) -> int:
    """What the times of a topic's records are held against, for `schemas.bounds.violation`.

    Times are held against the clock once, where records come in from outside. What our services have made of them is
    not held against the clock of each reader: a machine whose clock is wrong would refuse what another one announces.
    """
    return now_ms() if topic.name in _FROM_OUTSIDE else ANY_TIME_MS
