"""Crash as data: the worker dies before every step that outlives it; every request is answered, and always alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from schemas.records import Recommendation, Status
from tests.recovery.bus import ALL
from tests.recovery.crashes import die_again_and_again, die_before_each_step, maker, many_crashes
from tests.recovery.topics import refused
from tests.recovery.worker_on_bus import REQUESTED, TOO_MANY_AT, WorkerSystem

ROUNDING = 1e-4
"""Requests that are decoded together differ from life to life, and torch's rounding with them."""
System = Callable[..., WorkerSystem]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    return maker(WorkerSystem, monkeypatch, memory_path)


def check(crashed: WorkerSystem, calm: WorkerSystem, when: str) -> int:
    """Nothing that a client can see differs from the calm run, but that answers may be repeated; how many are."""
    crashed.check(when)
    answers, wanted = crashed.answers(), {request: found[0] for request, found in calm.answers().items()}
    assert sorted(answers) == sorted(wanted), when
    for request, repeated in answers.items():
        for answer in repeated:
            assert contents(answer) == contents(wanted[request]), when
            assert log_probs(answer) == pytest.approx(log_probs(wanted[request]), abs=ROUNDING), when
    assert refused(crashed.bus, crashed.kafka) == refused(calm.bus, calm.kafka), when
    assert crashed.bus.offsets == calm.bus.offsets, when
    return sum(len(repeated) - 1 for repeated in answers.values())


def contents(answer: Recommendation) -> tuple[Any, ...]:
    """All of an answer but times and log-probabilities."""
    items = [[item.item_id for item in items] for items in (answer.session, answer.ranked)]
    return (answer.user_id, answer.status, answer.reason, items, answer.model_version, answer.history_length)


def log_probs(answer: Recommendation) -> list[float]:
    return [answer.session_log_prob, *(item.log_prob for item in (*answer.session, *answer.ranked))]


def test_the_requests_without_a_crash(system: System) -> None:
    calm = system()
    calm.live()

    answers = calm.answers()
    assert sorted(answers) == list(range(REQUESTED))
    assert all(len(found) == 1 for found in answers.values())
    declined = [request for request, (answer,) in answers.items() if answer.status is not Status.ANSWERED]
    assert declined == [TOO_MANY_AT]
    reasons = sorted(reason for *_, reason in refused(calm.bus, calm.kafka))
    assert reasons == [Reason.OUT_OF_BOUNDS, Reason.UNDECODABLE, Reason.UNDECODABLE]
    for what in ("deliver to recommendations", "deliver to dead-letters", "commit offsets", "local write"):
        assert calm.bus.steps.count(what) >= 2, what


def test_a_crash_between_any_two_steps_leaves_no_request_unanswered(system: System) -> None:
    variants = [
        {"keeps_in_flight": 0, "at_once": True},
        {"keeps_in_flight": 2, "at_once": False},
        {"keeps_in_flight": ALL, "at_once": True},
    ]
    tried = die_before_each_step(system, variants, check)
    assert tried.steps > tried.different > 40, "each different thing that a crash leaves was tried once"
    assert tried.repeated > 0, "some had been answered, and not yet committed"


@many_crashes(6)
@given(
    crashes=st.lists(st.integers(0, 30), min_size=2, max_size=4),
    batch=st.integers(1, 4),
    keeps_in_flight=st.sampled_from([0, 1, ALL]),
    at_once=st.booleans(),
)
def test_many_crashes_leave_no_request_unanswered(
    system: System, crashes: list[int], batch: int, keeps_in_flight: int, *, at_once: bool
) -> None:
    calm = system(batch=batch)
    calm.live()

    crashed, died = die_again_and_again(
        system(batch=batch, keeps_in_flight=keeps_in_flight, at_once=at_once), crashes, partial(system, at_once=at_once)
    )

    assert 1 <= died <= len(crashes)
    assert check(crashed, calm, f"died after {crashes}") <= died * REQUESTED, "each life at most once more"
