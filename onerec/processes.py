"""For processes that start others: children that end with their parent, and free ports."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a child between fork and exec may not


def die_with_parent() -> None:
    """In a child before exec (`preexec_fn`): Linux sends it SIGTERM when its parent ends, however that comes.

    What counts as the parent is the thread that started it: start children from one that lives as long as the
    process does.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
