"""Joiners on a bus in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onerec.kafka import clients
from tests.stream.joiner.system import System


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Makes systems; all clients of the process are on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> System:
        made[0] += 1
        new = System(tmp_path / f"system-{made[0]}", **{"batch": 5, **arguments})
        monkeypatch.setattr(clients, "producer", new.bus.producer)
        monkeypatch.setattr(clients, "consumer", new.bus.consumer)
        return new

    return make
