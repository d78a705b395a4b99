"""For processes that start others: children that end with their parent, and free ports."""

from __future__ import annotations

import ctypes
import random
import signal
import socket
import sys

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
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
    """A port of loopback that nobody listens on now, and that on Linux no other caller is given from then on.

    It lies below those that the system gives to outgoing connections and to whoever asks for any port: one of them
    could have it before the child that it is meant for. It is spoken for until this process ends.
    """
    if _LIBC is not None:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if _speak_for(port):
                return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        given: int = probe.getsockname()[1]
        return given


def _speak_for(port: int) -> bool:
    """Whether it is free and now ours to give away: a socket without a file, by its name, says so to all others."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0onerec-port-{port}")
        with socket.socket() as probe:
            probe.bind((LOOPBACK, port))
    except OSError:
        mark.close()
        return False
    mark.detach()  # it stays open as long as this process lives
    return True
