"""A thread that keeps state of the process up with a topic; what ends it is raised where the state is used."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import closing

LOG = logging.getLogger(__name__)

Turns = Generator[None, None, None]
"""Following as an endless generator: it yields after each turn, and its `finally` lets go of what it holds."""


class FollowingThread:
    """Takes turn after turn of `follow` until one fails or the thread is closed."""

    def __init__(self, name: str, follow: Callable[[], Turns]) -> None:
        self.stopping = threading.Event()
        self._name, self._turns = name, follow()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let the turn end that is under way, and no other begin."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._turns.close()

    def _run(self) -> None:
        try:
            with closing(self._turns):
                while not self.stopping.is_set():
                    next(self._turns)
        except BaseException as error:
            LOG.exception("%s ended", self._name)
            self._failure = error
