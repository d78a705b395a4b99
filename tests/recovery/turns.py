"""Following threads without threads: whoever drives a service on a bus takes their turns, in an order that repeats."""

from __future__ import annotations

import pytest

from inference.following import FollowingThread


class Turns:
    """The following threads that a process has started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are started from now on are ours."""
        self._started: list[FollowingThread] = []

        def start(thread: FollowingThread) -> None:
            self._started.append(thread)

        monkeypatch.setattr(FollowingThread, "start", start)
        monkeypatch.setattr(FollowingThread, "check", lambda _: None)  # what fails, fails here

    def take(self) -> None:
        """One turn of each."""
        for thread in self._started:
            if not thread.stopping.is_set():
                next(thread._turns)
