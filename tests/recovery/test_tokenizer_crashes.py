"""Crash as data: codebook's job and tokenizer die before every step that outlives them; every item keeps its one id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.reasons import Reason
from tests.recovery.bus import ALL
from tests.recovery.picture import pictures
from tests.recovery.tokenizer_on_bus import GOOD, TokenizerSystem
from tests.recovery.topics import refused

System = Callable[..., TokenizerSystem]
REASONS = [Reason.NON_FINITE, Reason.UNDECODABLE, Reason.UNDECODABLE, Reason.WRONG_WIDTH, Reason.WRONG_WIDTH]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> TokenizerSystem:
        made[0] += 1
        return TokenizerSystem(monkeypatch, memory_path / str(made[0]), **arguments)

    return make


def check(crashed: TokenizerSystem, calm: TokenizerSystem, when: str) -> None:
    """Codebook, ids, refusals and offsets are those of the calm run; only records may be repeated."""
    crashed.check(when)
    assert crashed.codebook() == calm.codebook(), when
    newest = {tokens.item_id: tokens for tokens in crashed.tokens()}
    assert newest == {tokens.item_id: tokens for tokens in calm.tokens()}, when
    assert refused(crashed.bus, crashed.kafka) == refused(calm.bus, calm.kafka), when
    assert crashed.bus.offsets == calm.bus.offsets, when


def test_the_items_without_a_crash(system: System) -> None:
    calm = system()
    calm.live()

    assert len({tokens.item_id for tokens in calm.tokens()}) == GOOD
    assert len(calm.tokens()) == GOOD + 2, "two have changed"
    assert sorted(reason for *_, reason in refused(calm.bus, calm.kafka)) == REASONS
    for what in ("deliver to item-tokens", "deliver to dead-letters", "commit offsets", "read", "sync", "os.rename"):
        assert any(step.startswith(what) for step in calm.bus.steps), what


def test_a_crash_between_any_two_steps_gives_no_item_another_id(system: System) -> None:
    tried: set[str] = set()
    steps = 0
    for keeps_in_flight in (0, 2, ALL):
        calm = system(keeps_in_flight=keeps_in_flight)
        taken = pictures(calm.bus, calm.folder, calm.live)
        steps += len(taken)
        for number, picture in enumerate(taken):
            if picture.likeness() not in tried:
                tried.add(picture.likeness())
                crashed = system(left=picture)
                crashed.live()
                check(crashed, calm, f"died before step {number}: {picture.step}")
    assert steps > len(tried) > 40, "each different thing that a crash leaves was tried once"


@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    crashes=st.lists(st.integers(0, 60), min_size=2, max_size=4),
    batch=st.integers(1, 5),
    keeps_in_flight=st.sampled_from([0, 1, ALL]),
)
def test_many_crashes_give_no_item_another_id(
    system: System, crashes: list[int], batch: int, keeps_in_flight: int
) -> None:
    calm = system()
    calm.live()

    crashed = system(batch=batch, keeps_in_flight=keeps_in_flight)
    for crash in crashes:
        for picture in pictures(crashed.bus, crashed.folder, crashed.live, only=crash):
            crashed = system(left=picture)
    crashed.live()

    check(crashed, calm, f"died after {crashes}")
