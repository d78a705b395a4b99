"""Peak memory of this process and all its children."""

from __future__ import annotations

import psutil


class PeakMemory:
    """The highest sum of resident memory seen; shared pages count once for each process, so it is an upper bound."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._root = psutil.Process()

    def sample(self) -> int:
        """Look now; returns the sum in bytes."""
        total = 0
        for process in (self._root, *self._root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, total)
        return total
