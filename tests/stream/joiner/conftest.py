"""Joiners on a bus in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onerec.errors import DependencyMissingError
from stream.joiner.native import binding
from tests.recovery import disk
from tests.recovery.bus_clients import connect
from tests.stream.joiner.system import System


@pytest.fixture(scope="session", autouse=True)
def _compiled_join() -> None:
    """Joiners in these tests take the compiled join wherever there is a compiler."""
    with contextlib.suppress(DependencyMissingError):
        binding.build()


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Makes systems; all clients of the process are on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> System:
        made[0] += 1
        new = System(memory_path / f"system-{made[0]}", **{"batch": 5, **arguments})
        connect(monkeypatch, new.bus)
        disk.local(monkeypatch, new.bus)
        return new

    return make
