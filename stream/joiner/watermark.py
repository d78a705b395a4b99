"""Event time of one partition: how far it has certainly come, over two inputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from stream.joiner.join import BEGINNING_MS

IMPRESSIONS = 0
ACTIONS = 1
INPUTS = (IMPRESSIONS, ACTIONS)


@dataclass(slots=True)
class Watermark:
    """The newest event time of each input, and the watermark, which never goes back."""

    newest_ms: list[int] = field(default_factory=lambda: [BEGINNING_MS, BEGINNING_MS])
    value_ms: int = BEGINNING_MS

    def advance(self, lateness_ms: int, idle: Collection[int] = ()) -> int:
        """The older of the inputs' newest event times, less the lateness; inputs that stand idle are left out."""
        live = [self.newest_ms[source] for source in INPUTS if source not in idle]
        if live and min(live) > BEGINNING_MS:
            self.value_ms = max(self.value_ms, min(live) - lateness_ms)
        return self.value_ms

    def pass_everything(self, window_ms: int) -> int:
        """All inputs stand idle: go past the window of everything that has come."""
        newest_ms = max(self.newest_ms)
        if newest_ms > BEGINNING_MS:
            self.value_ms = max(self.value_ms, newest_ms + window_ms)
        return self.value_ms
