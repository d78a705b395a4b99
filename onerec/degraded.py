"""What a running service goes on without: told when it goes and when it is back, and by a gauge meanwhile."""

from __future__ import annotations

import logging
import time

from prometheus_client import Gauge

LOG = logging.getLogger(__name__)
DEGRADED = Gauge("onerec_degraded", "1 while the service goes on without this.", ["service", "lacks"])
TELL_AGAIN_S = 30.0


class Lack:
    """One thing that a service can do without for a while. Used by one thread."""

    def __init__(self, service: str, lacks: str) -> None:
        """`lacks` names it in metrics, in `python -m onerec.health` and in the log: "weights store"."""
        self._lacks = lacks
        self._gauge = DEGRADED.labels(service, lacks)
        self._gauge.set(0)
        self._since_s: float | None = None
        self._tell_s = 0.0

    def missing(self, sentence: str) -> None:
        """It is not there; what that means and what to do. Logged at once, then every half minute."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = self._tell_s = now_s
        if now_s >= self._tell_s:
            self._tell_s = now_s + TELL_AGAIN_S
            LOG.error("without its %s for %.0f s: %s", self._lacks, now_s - self._since_s, sentence)
        self._gauge.set(1)  # last: who sees the gauge finds the reason in the log

    def there(self) -> None:
        """It is there."""
        if self._since_s is not None:
            LOG.info("its %s is back after %.0f s", self._lacks, time.monotonic() - self._since_s)
            self._since_s = None
            self._gauge.set(0)
