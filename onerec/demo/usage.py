"""What the processes of a run use: peak memory of all, processor time of each."""

from __future__ import annotations

from collections.abc import Mapping

import psutil


class Usage:
    """Looks at this process and its children again and again.

    Memory is the highest sum of resident memory seen; shared pages count once for each process, so it is an upper
    bound. Processor time is user and system seconds by service, as of the last look at it.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.cpu_s: dict[str, float] = {}
        self._root = psutil.Process()

    def sample(self, services: Mapping[int, str]) -> None:
        """Look now; `services` names processes by process id, the others count as `demo` and `broker`."""
        total = 0
        for process in (self._root, *self._root.children(recursive=True)):
            try:
                with process.oneshot():
                    total += process.memory_info().rss
                    times = process.cpu_times()
                    name = services.get(process.pid) or ("demo" if process == self._root else "broker")
                    self.cpu_s[name] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, total)
