"""Packed lists, and the rules about them."""

from __future__ import annotations

import contextlib
import math

from schemas.packed import pack_floats, pack_longs, unpack_floats, unpack_longs

SEEDS = [pack_longs([0, -1, 2**63 - 1]), pack_floats([0.0, math.nan, math.inf]), b"", b"\x00"]


def target(data: bytes) -> None:
    """What unpacks packs to the same."""
    with contextlib.suppress(ValueError):
        assert pack_longs(unpack_longs(data)) == data
    with contextlib.suppress(ValueError):
        assert len(pack_floats(unpack_floats(data))) == len(data)
