"""Crash as data: the sampler dies before every step that outlives it; what it makes twice is the same pair."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.sampler.identity import pair_id_of
from schemas.reasons import Reason
from tests.recovery.bus import ALL
from tests.recovery.crashes import die_again_and_again, die_before_each_step, maker, many_crashes
from tests.recovery.sampler_on_bus import SAMPLED, SamplerSystem
from tests.recovery.topics import refused

System = Callable[..., SamplerSystem]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    return maker(SamplerSystem, monkeypatch, memory_path)


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
    variants = [{"keeps_in_flight": 0, "at_once": True}, {"keeps_in_flight": ALL, "at_once": False}]
    tried = die_before_each_step(system, variants, check)
    assert tried.steps > tried.different > 25, "each different thing that a crash leaves was tried once"
    assert tried.repeated > 0, "some pairs were there, and their requests not yet committed"


@many_crashes(6)
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

    crashed, died = die_again_and_again(
        system(batch=batch, keeps_in_flight=keeps_in_flight, at_once=at_once), crashes, partial(system, at_once=at_once)
    )

    assert 1 <= died <= len(crashes)
    assert check(crashed, calm, f"died after {crashes}") <= died * len(calm.pairs()), "each life at most once more"
