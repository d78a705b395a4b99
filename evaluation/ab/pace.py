"""Simulated time goes no faster than the system follows: two days pass in minutes, and no trainer may fall behind.

A trainer that lags by hours of event time serves weights of hours ago, which no trainer does that has these hours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from onerec.metrics import Samples, scrape
from onerec.service import Stop

LOG = logging.getLogger(__name__)
MOST_BEHIND = 500
"""Events that a service may not have read yet: some minutes of event time in the full form, a batch or two."""
LAGS = ("stream_joiner_lag_events", "trainer_lag_events")
LOOK_EVERY_S = 1.0
LONGEST_WAIT_S = 600.0


class Pace:
    """Waits for those who follow."""

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

    def keep(self) -> None:
        """Return when nobody is behind; at once where that was so a moment ago.

        Who does not catch up in ten minutes is told in the log, and time goes on: the report counts what is missing.
        """
        began_s = time.monotonic()
        if began_s - self._looked_s < LOOK_EVERY_S:
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
