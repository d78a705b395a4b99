"""Memory that was freed goes back to the system, and what is in use is told apart from what is not.

glibc keeps what is freed between blocks that are still in use, so a process that makes and drops large buffers for
days looks as if it leaked. `malloc_trim` gives whole free pages back; few arenas, and a mapping of its own for each
large buffer, leave less of it lying about. In between, what was freed is used again: a training step that asked the
system anew for pages that it had just given back spent a sixteenth of its processor time there.
`onerec_heap_used_bytes`, of mallinfo2(3), does not count what is free: it grows where something is kept, and only
there. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Mapping

from prometheus_client import Gauge

LOG = logging.getLogger(__name__)
INTERVAL_S = 60.0
ARENAS = 2
"""One for the thread that computes, one for all others; the default is eight times the cores."""
MAPPED_FROM = 32 << 20
"""Bytes, the largest bound that glibc takes. Tensors of a step stay in the heap, to be used again:
with a bound of 1 MiB a step took a third more of the processor."""
KEPT_AT_THE_END = 512 << 20
"""Bytes that are free at the heap's end before it shrinks by itself, which is 128 KiB once a bound is set."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
"""Of malloc.h."""
NEVER = -1
USED = Gauge("onerec_heap_used_bytes", "Bytes that malloc has given out and that were not freed; 0 where unknown.")


class _MallInfo2(ctypes.Structure):
    """What mallinfo2(3) returns, over all arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def give_back_freed_memory(interval_s: float = INTERVAL_S) -> None:
    """Every `interval_s`, by a thread that ends with the process. Options and the gauge are set at once."""
    libc = use_freed_memory_again()
    if libc is None:
        return
    trim = libc.malloc_trim
    if hasattr(libc, "mallinfo2"):  # glibc 2.33 and later
        libc.mallinfo2.restype = _MallInfo2
        USED.set_function(lambda: used_bytes(libc))

    def give_back() -> None:
        while True:
            pause.wait(interval_s)
            trim(ctypes.c_size_t(0))

    pause = threading.Event()  # never set: a sleep that no clock's step changes
    threading.Thread(target=give_back, name="heap", daemon=True).start()


def use_freed_memory_again() -> ctypes.CDLL | None:
    """Set the options of malloc; returns its library, None where it is not glibc's."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        LOG.info("freed memory stays with the process: this C library has no malloc_trim")
        return None
    _set(libc, {M_ARENA_MAX: ARENAS, M_MMAP_THRESHOLD: MAPPED_FROM, M_TRIM_THRESHOLD: KEPT_AT_THE_END})
    return libc


def keep_freed_memory() -> None:
    """Give nothing back before the process ends: for computations that make and drop tensors of 100 MB at every step.

    Each of these is a mapping of its own otherwise, whose pages the system zeroes anew. Not for services, whose memory
    would stay at its highest.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        _set(libc, {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER})


def _set(libc: ctypes.CDLL, options: Mapping[int, int]) -> None:
    for option, value in options.items():
        if not libc.mallopt(option, value):
            LOG.info("this C library does not know the option %d of mallopt", option)


def used_bytes(libc: ctypes.CDLL) -> int:
    """Bytes in use, in the heap and in blocks with a mapping of their own."""
    found = libc.mallinfo2()
    return int(found.uordblks + found.hblkhd)
