"""How much the worker holds: when it leaves further requests with the broker, and when it reads on."""

from __future__ import annotations

MAX_BYTES = 64 * 1024 * 1024
"""Of what the waiting requests carry: a request may exclude a hundred thousand items."""


class Room:
    """There is none from a limit on, and again once half of it is left: pausing throws away what was fetched ahead."""

    def __init__(self, max_requests: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._full = False

    def left(self, requests: int, size_bytes: int) -> bool:
        """Whether further requests are to be read, with so many held that carry so much."""
        share = max(requests / self._max_requests, size_bytes / self._max_bytes)
        self._full = share > 0.5 if self._full else share >= 1.0
        return not self._full
