"""Crash as data: the trainer dies before every step that outlives it; weights, journal and versions are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.reasons import Reason
from schemas.topics import MODEL_VERSIONS, PREFERENCES, SESSIONS
from tests.recovery.bus import ALL, Fate
from tests.recovery.topics import records
from tests.recovery.trainer_on_bus import TrainerSystem

WHAT = ("deliver to trainer-journal", "deliver to dead-letters", "commit", "sync state.json", "os.rename", "os.remove")


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainerSystem]:
    """Makes systems; all of the process is on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> TrainerSystem:
        made[0] += 1
        return TrainerSystem(monkeypatch, memory_path / str(made[0]), **arguments)

    return make


def test_the_stream_without_a_crash(system: Callable[..., TrainerSystem]) -> None:
    calm = system()
    calm.live()

    calm.check_versions()
    outcome = calm.outcome()
    ranges = [r for _, ranges, _, _ in outcome.steps for r in ranges if r.topic in (SESSIONS.name, PREFERENCES.name)]
    assert sum(r.applied for r in ranges) == 8 + 1 + 2, "each once, however often it was sent"
    assert sum(r.records for r in ranges) == 11 + 3
    assert sorted(reason for *_, reason in outcome.refused) == [Reason.UNDECODABLE, Reason.UNKNOWN_ITEM]
    kinds = [version.kind for version in records(calm.bus, calm.kafka, MODEL_VERSIONS)]
    assert {"full", "delta"} <= set(kinds)
    for what in WHAT:
        assert sum(step.startswith(what) for step in calm.bus.steps) >= 2, what


def test_a_crash_between_any_two_steps_changes_nothing(system: Callable[..., TrainerSystem]) -> None:
    tried: set[str] = set()
    steps = 0
    for keeps_in_flight in (0, ALL):  # what is sent lands at once, or when it is flushed
        calm = system(keeps_in_flight=keeps_in_flight)
        pictures = calm.pictures()
        steps += len(pictures)
        wanted = calm.outcome()
        for number, picture in enumerate(pictures):
            if picture.likeness() in tried:
                continue
            tried.add(picture.likeness())
            crashed = system(left=picture)
            crashed.live()
            assert crashed.outcome() == wanted, f"died before step {number}: {picture.step}"
            crashed.digests |= calm.digests
            crashed.check_versions()
    assert steps > 150 > len(tried) > 50, "each different thing that a crash leaves was tried once"


@hypothesis_settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(crashes=st.lists(st.integers(0, 60), min_size=2, max_size=4), keeps_in_flight=st.sampled_from([0, 1, ALL]))
def test_many_crashes_change_nothing(
    system: Callable[..., TrainerSystem], crashes: list[int], keeps_in_flight: int
) -> None:
    calm = system()
    calm.live()

    crashed = system(keeps_in_flight=keeps_in_flight)
    crashed.live_through(crashes)

    assert crashed.outcome() == calm.outcome()
    crashed.check_versions()


@pytest.mark.parametrize("fate", list(Fate))
def test_an_announcement_that_is_not_answered_is_made_once(system: Callable[..., TrainerSystem], fate: Fate) -> None:
    calm = system()
    calm.live()

    for step in [step for step, name in enumerate(calm.bus.steps) if name == "commit"]:
        troubled = system()
        troubled.bus.timeouts = {step: fate}
        troubled.live()
        assert troubled.outcome() == calm.outcome()
        troubled.check_versions()
