"""A side for the tests of the frame: notes when it works, and measures how often it has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Counting:
    def __init__(self, *, name: str = "", journal: str = "", fails: bool = False) -> None:
        self._name, self._journal, self._fails, self._turns = name, journal, fails, 0

    def prepare(self) -> dict[str, Any]:
        if self._fails:
            raise ValueError("this side cannot")
        print("what libraries print does not disturb the answers")  # noqa: T201
        return {"threads": os.environ["OMP_NUM_THREADS"]}

    def repeat(self) -> dict[str, Any]:
        self._turns += 1
        self._note("begins")
        self._note("ends")
        return {"seconds": float(self._turns)}

    def _note(self, edge: str) -> None:
        if self._journal:
            with Path(self._journal).open("a") as journal:
                journal.write(f"{self._name} {edge} {os.getpid()}\n")
