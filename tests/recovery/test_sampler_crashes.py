"""Crash as data: the sampler dies before every step that outlives it; what it makes twice is the same pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inference.sampler.identity import pair_id_of
from schemas.reasons import Reason
from tests.recovery.bus import ALL
from tests.recovery.picture import pictures
from tests.recovery.sampler_on_bus import SAMPLED, SamplerSystem
from tests.recovery.topics import refused

System = Callable[..., SamplerSystem]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> SamplerSystem:
        made[0] += 1
        return SamplerSystem(monkeypatch, memory_path / str(made[0]), **arguments)

    return make


def check(crashed: SamplerSystem, calm: SamplerSystem, when: str) -> int:
    """Pairs, refusals and offsets are those of the calm run, but that pairs may be repeated; how many are."""
    crashed.check(when)
    wanted = {pair.pair_id: pair for pair in calm.pairs()}
    assert {pair.pair_id for pair in crashed.pairs()} == wanted.keys(), when
    for pair in crashed.pairs():
        assert pair == wanted[pair.pair_id], when
    assert refused(crashed.bus, crashed.kafka) == refused(calm.bus, calm.kafka), when
    assert crashed.bus.offsets == calm.bus.offsets, when
    return len(crashed.pairs()) - len(wanted)


def test_the_requests_without_a_crash(system: System) -> None:
    calm = system()
    calm.live()

    assert sorted(pair.pair_id for pair in calm.pairs()) == sorted(map(pair_id_of, SAMPLED))
    assert [reason for *_, reason in refused(calm.bus, calm.kafka)] == [Reason.UNDECODABLE] * 2
    for what in ("deliver to preferences", "deliver to dead-letters", "commit offsets", "local write", "read"):
        assert calm.bus.steps.count(what) >= 2, what


def test_a_crash_between_any_two_steps_makes_no_other_pair(system: System) -> None:
    tried: set[str] = set()
    steps = repeated = 0
    for keeps_in_flight, at_once in ((0, True), (ALL, False)):
        calm = system(keeps_in_flight=keeps_in_flight, at_once=at_once)
        taken = pictures(calm.bus, calm.folder, calm.live)
        steps += len(taken)
        for number, picture in enumerate(taken):
            if picture.likeness() not in tried:
                tried.add(picture.likeness())
                crashed = system(left=picture)
                crashed.live()
                repeated += check(crashed, calm, f"died before step {number}: {picture.step}")
    assert steps > len(tried) > 25, "each different thing that a crash leaves was tried once"
    assert repeated > 0, "some pairs were there, and their requests not yet committed"


@hypothesis_settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    crashes=st.lists(st.integers(0, 30), min_size=2, max_size=4),
    batch=st.integers(1, 5),
    keeps_in_flight=st.sampled_from([0, 1, ALL]),
    at_once=st.booleans(),
)
def test_many_crashes_make_no_other_pair(
    system: System, crashes: list[int], batch: int, keeps_in_flight: int, *, at_once: bool
) -> None:
    calm = system()
    calm.live()

    crashed = system(batch=batch, keeps_in_flight=keeps_in_flight, at_once=at_once)
    for crash in crashes:
        for picture in pictures(crashed.bus, crashed.folder, crashed.live, only=crash):
            crashed = system(left=picture, at_once=at_once)
    crashed.live()

    check(crashed, calm, f"died after {crashes}")
