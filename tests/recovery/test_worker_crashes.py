"""Crash as data: the worker dies before every step that outlives it; every request is answered, and always alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.reasons import Reason
from schemas.records import Recommendation, Status
from tests.recovery.bus import ALL
from tests.recovery.picture import pictures
from tests.recovery.topics import refused
from tests.recovery.worker_on_bus import REQUESTED, TOO_MANY_AT, WorkerSystem

ROUNDING = 1e-4
"""Requests that are decoded together differ from life to life, and torch's rounding with them."""
System = Callable[..., WorkerSystem]


@pytest.fixture
def system(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Makes systems; all of the process is on the newest one's bus."""
    made = [0]

    def make(**arguments: Any) -> WorkerSystem:
        made[0] += 1
        return WorkerSystem(monkeypatch, memory_path / str(made[0]), **arguments)

    return make


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
    tried: set[str] = set()
    steps = repeated = 0
    for keeps_in_flight, at_once in ((0, True), (2, False), (ALL, True)):
        calm = system(keeps_in_flight=keeps_in_flight, at_once=at_once)
        taken = pictures(calm.bus, calm.folder, calm.live)
        steps += len(taken)
        for number, picture in enumerate(taken):
            if picture.likeness() in tried:
                continue
            tried.add(picture.likeness())
            crashed = system(left=picture)
            crashed.live()
            repeated += check(crashed, calm, f"died before step {number}: {picture.step}")
    assert steps > len(tried) > 40, "each different thing that a crash leaves was tried once"
    assert repeated > 0, "some had been answered, and not yet committed"


@hypothesis_settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
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

    crashed = system(batch=batch, keeps_in_flight=keeps_in_flight, at_once=at_once)
    for crash in crashes:
        for picture in pictures(crashed.bus, crashed.folder, crashed.live, only=crash):
            crashed = system(left=picture, at_once=at_once)
    crashed.live()

    check(crashed, calm, f"died after {crashes}")
