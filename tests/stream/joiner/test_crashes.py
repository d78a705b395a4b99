"""Crash as data: the joiner dies before every step that outlives it and starts again; nothing is lost or doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.recovery.bus import Crash
from tests.stream.joiner.system import System


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "Python"])
def test_the_story_without_a_crash(system: Callable[..., System], *, compiled: bool) -> None:
    calm = system(joins=(compiled,))
    calm.live()

    outcome = calm.outcome()

    pairs = [[10, 11], [12, 13], [14, 15], [20], [21], [22]]
    found = [(session.user_id, [item.item_id for item in session.items]) for session in outcome.sessions]
    assert found == [(user, items) for user in (1, 2) for items in pairs] + [(3, [10])]
    assert sorted(reason for _, _, reason in outcome.refused) == ["late", "late", "orphan", "orphan"]  # type: ignore[misc]
    assert {key: record.history_labels for key, record in outcome.histories.items()} == {
        b"1": bytes([2, 2, 2]),
        b"2": bytes([2, 2, 2]),
        b"3": bytes([2]),
    }


@pytest.mark.parametrize("lose_memory", [True, False], ids=["disk as of the last flush", "disk as of the crash"])
def test_a_crash_between_any_two_steps_changes_nothing(system: Callable[..., System], *, lose_memory: bool) -> None:
    calm = system(partitions=2)
    calm.live()
    wanted = calm.outcome()
    steps = calm.bus.steps
    assert steps.count("committed") >= 5

    for calls, step in enumerate(steps):
        crashed = system(partitions=2, joins=(not lose_memory, calls % 2 > 0))  # one goes on with the other's state
        crashed.live_through([calls], lose_memory=lose_memory)
        assert crashed.outcome() == wanted, f"died at step {calls}: {step}"


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    crashes=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    batch=st.integers(1, 9),
    lose=st.booleans(),
    joins=st.lists(st.booleans(), min_size=1, max_size=3),
)
def test_many_crashes_change_nothing(
    system: Callable[..., System], crashes: list[int], batch: int, joins: list[bool], *, lose: bool
) -> None:
    calm = system(batch=batch)
    calm.live()
    wanted = calm.outcome()

    crashed = system(batch=batch, joins=tuple(joins))
    crashed.live_through(crashes, lose_memory=lose)

    assert crashed.outcome() == wanted


def test_a_new_machine_restores_the_state_from_the_changelog(system: Callable[..., System]) -> None:
    calm = system()
    calm.live()
    wanted = calm.outcome()

    moved = system(batch=3)
    for calls in (14, 12, 16):
        with pytest.raises(Crash):
            moved.live(calls)
        shutil.rmtree(moved.directory, ignore_errors=True)
    moved.live()

    assert moved.outcome() == wanted


def test_on_a_broker_that_serves_what_was_aborted_the_state_is_right_and_only_repetitions_are_added(
    system: Callable[..., System],
) -> None:
    calm = system()
    calm.live()
    wanted = calm.outcome()

    repeated = 0
    for calls in [calls for calls, step in enumerate(calm.bus.steps) if step == "offsets"]:
        crashed = system()
        crashed.bus.serves_aborted = True
        crashed.live_through([calls, 12, 9])

        outcome = crashed.outcome()
        once = {session.session_id: session for session in outcome.sessions}
        assert all(once[session.session_id] == session for session in outcome.sessions)
        assert sorted(once) == sorted(session.session_id for session in wanted.sessions)
        assert outcome.histories == wanted.histories
        repeated += len(outcome.sessions) - len(once)
    assert repeated > 0
