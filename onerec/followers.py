"""Whoever sends a log or simulates users goes no faster than the system follows.

Days of event time pass in minutes, and a trainer that lags by hours of it serves weights of hours ago, which no trainer
does that has these hours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from onerec.errors import SettingsError
from onerec.metrics import Samples, scrape
from onerec.service import Stop

LOG = logging.getLogger(__name__)
MOST_BEHIND = 500
"""Events that a service may not have read yet: a few batches."""
LAGS = ("stream_joiner_lag_events", "trainer_lag_events")
LOOK_EVERY_S = 1.0
LONGEST_WAIT_S = 600.0


def ports_of(named: Iterable[str]) -> dict[str, int]:
    """Metrics ports by name, from NAME=PORT. Raises SettingsError."""
    found = {}
    for one in named:
        name, _, port = one.rpartition("=")
        if not name or not port.isdecimal():
            raise SettingsError(f"--follower {one} names nobody.", "Write it like trainer=9101.")
        found[name] = int(port)
    return found


class Followers:
    """Joiners and trainers that somebody who sends waits for."""

    def __init__(
        self,
        endpoints: Mapping[str, int],
        stop: Stop,
        *,
        most_behind: int = MOST_BEHIND,
        read: Callable[[Mapping[str, int]], Samples] = scrape,
    ) -> None:
        """`endpoints` are metrics ports of joiners and trainers by name."""
        self._endpoints, self._stop, self._most, self._read = endpoints, stop, most_behind, read
        self._looked_s = -LOOK_EVERY_S
        self.waited_s = 0.0

    def keep_up(self) -> None:
        """Return when nobody is behind; at once where that was so a moment ago.

        Who does not catch up in ten minutes is told in the log, and time goes on: the report counts what is missing.
        """
        began_s = time.monotonic()
        if not self._endpoints or began_s - self._looked_s < LOOK_EVERY_S:
            return
        while behind := self._behind():
            if time.monotonic() - began_s > LONGEST_WAIT_S:
                LOG.warning("%s did not catch up within %.0f s", ", ".join(behind), LONGEST_WAIT_S)
                break
            if self._stop.wait(LOOK_EVERY_S):
                break
        self._looked_s = time.monotonic()
        self.waited_s += self._looked_s - began_s

    def _behind(self) -> list[str]:
        samples = self._read(self._endpoints)
        return [name for name in self._endpoints if max(samples.get(lag, job=name) for lag in LAGS) > self._most]
