"""A whole joiner: events of one partition, restored after half of them, on a broker in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.hostile.records import VALID
from tests.recovery.bus import Entry
from tests.recovery.bus_clients import connect
from tests.stream.joiner.system import System, story

MEMORY = Path("/dev/shm")
"""Local state is opened twice for each input, which takes a tenth of a second on a disk."""
VALUES = [VALID["impressions"], VALID["actions"]]
SEEDS = [b"".join(bytes([number % 2, len(value)]) + value for number, value in enumerate(VALUES * 6))]


def target(data: bytes) -> None:
    """Values, each behind a byte that chooses the input and one with its length; a story stands before them."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory,
    ):
        system = System(Path(directory), batch=20, events=story())
        connect(patch, system.bus)
        values = []
        while len(data) >= 2:
            values.append((data[0] % 2, data[2 : 2 + data[1]]))
            data = data[2 + data[1] :]
        half = len(values) // 2
        for part in (values[:half], values[half:]):
            for source, value in part:
                system.bus.log((system.wiring.inputs[source], 0)).append(Entry(b"1", value, 1))
            system.live()
        assert system.is_committed()
        assert len(system.outcome().refused) <= len(values) + len(story())
