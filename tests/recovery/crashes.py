"""Processes that die before each of their steps, or again and again, each compared with one that did not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.recovery.bus import Bus
from tests.recovery.picture import pictures


class System(Protocol):
    """A bus with work on it, and processes that run and die on it one after another."""

    bus: Bus
    folder: Path

    def live(self) -> None:
        """One process from its start to its end."""


S = TypeVar("S", bound=System)
Make = Callable[..., S]
"""Makes a fresh system, or with `left` one of what a crash has left; all of the process is on the newest one's bus."""
Check = Callable[[S, S, str], int]
"""Raises AssertionError where the crashed one differs from the calm one; how many records are repeated."""


def maker(kind: Callable[..., S], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Make[S]:
    """Makes systems of this kind, each in a folder of its own."""
    made = [0]

    def make(**arguments: Any) -> S:
        made[0] += 1
        return kind(monkeypatch, folder / str(made[0]), **arguments)

    return make


def many_crashes(max_examples: int) -> hypothesis_settings:
    """For properties over lists of crashes."""
    suppressed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return hypothesis_settings(max_examples=max_examples, deadline=None, suppress_health_check=suppressed)


@dataclass
class Tried:
    """What was seen of crashes at each step."""

    steps: int = 0
    different: int = 0
    """Things that a crash leaves, each of which was tried once."""
    repeated: int = 0
    """Records that came twice."""


def die_before_each_step(make: Make[S], variants: Iterable[Mapping[str, Any]], check: Check[S]) -> Tried:
    """For each variant of a calm run one crash before each of its steps, and a successor that lives."""
    found, tried = Tried(), set[str]()
    for variant in variants:
        calm = make(**variant)
        for number, picture in enumerate(pictures(calm.bus, calm.folder, calm.live)):
            found.steps += 1
            if picture.likeness() in tried:
                continue
            tried.add(picture.likeness())
            crashed = make(left=picture)
            crashed.live()
            found.repeated += check(crashed, calm, f"died before step {number}: {picture.step}")
    found.different = len(tried)
    return found


def die_again_and_again(first: S, crashes: Sequence[int], again: Callable[..., S]) -> tuple[S, int]:
    """A process that dies before so many steps, its successor that dies, too, ..., and one that lives; how many died.

    Who has less to do than so many steps lives.
    """
    died = 0
    for crash in crashes:
        for picture in pictures(first.bus, first.folder, first.live, only=crash):
            first = again(left=picture)
            died += 1
    first.live()
    return first, died
