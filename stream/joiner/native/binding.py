"""The compiled join: what its functions take, as join.cpp declares them."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from onerec.compiled import Library
from onerec.errors import DependencyMissingError
from schemas.reasons import Reason

LOG = logging.getLogger(__name__)
LIBRARY = Library("join", Path(__file__).with_name("join.cpp"), ("-fwrapv",), "the joiner's compiled join")
HEADER_ROOM = 16
"""`Records::ROOM`: no codec's header is longer."""
REASONS: tuple[tuple[Reason, str], ...] = (
    (Reason.OUT_OF_BOUNDS, "the user has {most} open already, more than people do"),
    (Reason.LATE, "no newer than the whole history: it cannot be told from a repetition"),
    (Reason.ORPHAN, "no impression of item {item}"),
    (Reason.LATE, "the impression of item {item} had closed"),
)
"""`Why` of out.h."""
REFUSAL = 10
"""Fields of `Refusal`, all int64."""
ROW = 10
"""Fields of `Row`, all int64: the eight of `rows`, with 0 for null, and whether the two that may be null are there."""


class Rules(ctypes.Structure):
    """`onerec::Rules`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("session_items", "session_gap_ms", "window_ms", "history_items")),
        *((name, ctypes.c_int64) for name in ("most_open", "long_view_ms", "clock_ms", "min_watched")),
        *((name, ctypes.c_int64) for name in ("min_total_watch_ms", "need_interaction", "need_all")),
        ("short_video_share", ctypes.c_double),
    )


class Batch(ctypes.Structure):
    """`onerec::Batch`."""

    _fields_ = (
        ("keys", ctypes.c_char_p),
        ("key_sizes", ctypes.c_void_p),
        ("values", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("value_sizes", "offsets", "timestamps_ms")),
    )


class View(ctypes.Structure):
    """`View`: records in a row."""

    _fields_ = (
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("users", "begins", "ends", "times_ms", "bytes")),
        ("size", ctypes.c_int64),
    )


class Functions:
    """The loaded library."""

    new: Callable[..., int]
    free: Callable[..., None]
    decode: Callable[..., int]
    welcome: Callable[..., int]
    history: Callable[..., None]
    take: Callable[..., int]
    advance: Callable[..., None]
    is_behind: Callable[..., int]
    close_idle: Callable[..., int]
    touched: Callable[..., int]
    restore: Callable[..., int]
    write: Callable[..., None]
    clear: Callable[..., None]
    refusals: Callable[..., int]
    clear_refusals: Callable[..., None]
    forget: Callable[..., None]
    open: Callable[..., None]

    def __init__(self, target: Path) -> None:
        library = ctypes.CDLL(str(target))
        address, number, data = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
        for name, result, arguments in (
            ("new", address, (address,)),
            ("free", None, (address,)),
            ("decode", number, (number, data, number, data, address, number, address, address, address)),
            ("welcome", number, (address, address, address, number, address)),
            ("history", None, (address, number, data, data, data, number, number)),
            ("take", number, (address, number, address, address, number, address)),
            ("advance", None, (address, number, number)),
            ("is_behind", number, (address,)),
            ("close_idle", number, (address, number)),
            ("touched", number, (address,)),
            ("restore", number, (address, number, data, number, address, number)),
            ("write", None, (address, data, number, data, number, address, address)),
            ("clear", None, (address,)),
            ("refusals", number, (address, address, address, address)),
            ("clear_refusals", None, (address,)),
            ("forget", None, (address, address)),
            ("open", None, (address, address)),
        ):
            function = getattr(library, f"onerec_join_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


def build() -> Path:
    """Compile the library unless it is there. Raises DependencyMissingError where that cannot be done."""
    if sys.byteorder != "little":
        raise DependencyMissingError("The compiled join is for little-endian processors.", "Let Python join.")
    return LIBRARY.build()


@cache
def load() -> Functions | None:
    """The functions; None where they have not been built."""
    if sys.byteorder != "little" or not LIBRARY.path().exists():
        LOG.info("the compiled join is not there, Python joins, more slowly: `python -m stream compile` makes it")
        return None
    return Functions(LIBRARY.path())
