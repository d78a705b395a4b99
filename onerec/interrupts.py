"""Ctrl-C and SIGTERM for commands that run services: stop, whatever the moment.

Python raises KeyboardInterrupt wherever it happens to be, and drops it inside a weak reference's callback or a
`__del__`. So it is noted as well, and whoever waits in a loop looks.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def interrupt_on_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt, also where whoever started us had SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note_and_raise)


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt where a signal came and its own was lost; once for all that came."""
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt


def _note_and_raise(_number: int, _frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt
