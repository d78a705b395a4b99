"""One core for the joiner, the other for the broker: children inherit what their parent may run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.environments import PeerMissingError


def cores() -> tuple[int, int]:
    """A core for the joiner and one for the broker. Raises PeerMissingError where there are no two."""
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) < 2:
        raise PeerMissingError("There is one core only.", "A joiner and its broker need one each.")
    return ours[0], ours[-1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Whatever is started meanwhile runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
