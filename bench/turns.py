"""Two sides and the machine's limit take turns, each in a process of its own, never two at once."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onerec.errors import CheckFailedError
from onerec.processes import die_with_parent

ROOT = Path(__file__).parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STOP_S = 10.0
SETTLE_S = 0.05
"""Between two turns: threads of the side before stop spinning."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How to start a side."""

    target: str
    """MODULE:CLASS; see bench.side."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    python: str = sys.executable
    """The interpreter of a peer's own environment, where it has one."""


@dataclass(frozen=True, slots=True)
class Series:
    """What one side measured in its turns."""

    facts: dict[str, Any]
    turns: list[dict[str, Any]]

    def values(self, name: str = "seconds") -> list[float]:
        """One value of each turn."""
        return [float(turn[name]) for turn in self.turns]

    def median(self, name: str = "seconds") -> float:
        """The median over the turns."""
        return statistics.median(self.values(name))

    def spread(self, name: str = "seconds") -> float:
        """Largest less smallest, as a share of the median: how far to trust the figure."""
        values = self.values(name)
        return (max(values) - min(values)) / (statistics.median(values) or 1.0)


class SideProcess:
    """A side that waits for its turns. A context manager; leaving it ends the process."""

    def __init__(self, name: str, spec: Spec, directory: Path) -> None:
        self._name, self._spec = name, spec
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[str] | None = None
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Start it and wait until it is ready. Raises CheckFailedError with the end of what it printed."""
        spec = self._spec
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(spec.threads))
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [spec.python, "-m", "bench.side", spec.target, json.dumps(dict(spec.parameters))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - only prctl is called
            )
        try:
            self.facts = self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def repeat(self) -> dict[str, Any]:
        """One turn."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.write("repeat\n")
        process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            said = "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])
            raise CheckFailedError(f"{self._name} ended with code {process.returncode}: {said}", f"See {self._log}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError(f"{self._name} has not been started")
        return self._process

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


def in_turn(sides: Sequence[SideProcess], repeats: int, budget_s: float) -> list[Series]:
    """Let ready sides take turns, so that what else the machine does meets all of them alike.

    Every second round goes backwards. No round begins after `budget_s`; there is one at least.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in sides]
    started_s = time.monotonic()
    for number in range(repeats):
        if number and time.monotonic() - started_s > budget_s:
            break
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for place in order:
            found[place].append(sides[place].repeat())
            time.sleep(SETTLE_S)
    return [Series(side.facts, turns) for side, turns in zip(sides, found, strict=True)]
