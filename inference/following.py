"""A thread that keeps state of the process up with a topic; what ends it is raised where the state is used."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)


class FollowingThread:
    """Runs `body` until it returns or the thread is closed; `body` polls `stopping`."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.stopping = threading.Event()
        self._name, self._body = name, body
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
        """Ask the body to end and wait for it."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as error:
            LOG.exception("%s ended", self._name)
            self._failure = error
