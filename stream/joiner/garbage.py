"""Garbage collection at times of our choosing.

The state is many small objects without cycles; the collector walking over them costs a third of the throughput
(measured). So it is off, what was restored is frozen, and the young are collected every few seconds, for libraries
do make cycles.
"""

from __future__ import annotations

import gc

YOUNG_INTERVAL_S = 5.0
FULL_INTERVAL_S = 600.0


class PacedCollection:
    """Switches the collector off while it lives. `gc` belongs to the process: have one at a time."""

    def __init__(self) -> None:
        self._young_s = 0.0
        self._full_s = 0.0
        gc.disable()

    def freeze(self) -> None:
        """What is there now stays: never walk over it again."""
        gc.freeze()

    def turn(self, now_s: float) -> None:
        """Collect where it is time."""
        if self._full_s == 0.0:
            self._young_s, self._full_s = now_s + YOUNG_INTERVAL_S, now_s + FULL_INTERVAL_S
        elif now_s >= self._full_s:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._young_s, self._full_s = now_s + YOUNG_INTERVAL_S, now_s + FULL_INTERVAL_S
        elif now_s >= self._young_s:
            gc.collect(0)
            self._young_s = now_s + YOUNG_INTERVAL_S

    def stop(self) -> None:
        """Leave the collector as Python has it."""
        gc.unfreeze()
        gc.enable()
