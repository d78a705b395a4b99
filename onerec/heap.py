"""Memory that was freed goes back to the system.

glibc keeps what is freed between blocks that are still in use, so a process that makes and drops large buffers for
days looks as if it leaked. `malloc_trim` gives whole free pages back. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import logging
import threading

LOG = logging.getLogger(__name__)
INTERVAL_S = 60.0


def give_back_freed_memory(interval_s: float = INTERVAL_S) -> None:
    """From now on, every `interval_s`, by a thread that ends with the process."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        LOG.info("freed memory stays with the process: this C library has no malloc_trim")
        return

    def give_back() -> None:
        while True:
            pause.wait(interval_s)
            trim(ctypes.c_size_t(0))

    pause = threading.Event()  # never set: a sleep that no clock's step changes
    threading.Thread(target=give_back, name="heap", daemon=True).start()
