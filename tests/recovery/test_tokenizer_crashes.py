"""Crash as data: codebook's job and tokenizer die before every step that outlives them; every item keeps its one id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from tests.recovery.bus import ALL
from tests.recovery.crashes import die_again_and_again, die_before_each_step, maker, many_crashes
from tests.recovery.tokenizer_on_bus import GOOD, TokenizerSystem
from tests.recovery.topics import refused

System = Callable[..., TokenizerSystem]
REASONS = [Reason.NON_FINITE, Reason.UNDECODABLE, Reason.UNDECODABLE, Reason.WRONG_WIDTH, Reason.WRONG_WIDTH]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    return maker(TokenizerSystem, monkeypatch, memory_path)


def check(crashed: TokenizerSystem, calm: TokenizerSystem, when: str) -> int:
    """Codebook, ids, refusals and offsets are those of the calm run, but that records may be repeated; how many are."""
    crashed.check(when)
    assert crashed.codebook() == calm.codebook(), when
    newest = {tokens.item_id: tokens for tokens in crashed.tokens()}
    assert newest == {tokens.item_id: tokens for tokens in calm.tokens()}, when
    assert refused(crashed.bus, crashed.kafka) == refused(calm.bus, calm.kafka), when
    assert crashed.bus.offsets == calm.bus.offsets, when
    return len(crashed.tokens()) - len(calm.tokens())


def test_the_items_without_a_crash(system: System) -> None:
    calm = system()
    calm.live()

    assert len({tokens.item_id for tokens in calm.tokens()}) == GOOD
    assert len(calm.tokens()) == GOOD + 2, "two have changed"
    assert sorted(reason for *_, reason in refused(calm.bus, calm.kafka)) == REASONS
    for what in ("deliver to item-tokens", "deliver to dead-letters", "commit offsets", "read", "sync", "os.rename"):
        assert any(step.startswith(what) for step in calm.bus.steps), what


def test_a_crash_between_any_two_steps_gives_no_item_another_id(system: System) -> None:
    variants = [{"keeps_in_flight": 0}, {"keeps_in_flight": 2}, {"keeps_in_flight": ALL}]
    tried = die_before_each_step(system, variants, check)
    assert tried.steps > tried.different > 40, "each different thing that a crash leaves was tried once"


@many_crashes(8)
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

    crashed, died = die_again_and_again(system(batch=batch, keeps_in_flight=keeps_in_flight), crashes, system)

    assert 1 <= died <= len(crashes)
    assert check(crashed, calm, f"died after {crashes}") <= died * len(calm.tokens()), "each life at most once more"
