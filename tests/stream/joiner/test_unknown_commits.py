"""A call of the transactional producer that is not answered in time, or a record of which nobody knows.

The joiner must believe neither: it throws the producer away, and a new one and the broker's offsets tell.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream.joiner import service
from stream.joiner.service import run_joiner
from tests.recovery.bus import Fate
from tests.stream.joiner.system import System, UntilRead

CALLS = ("init", "flush", "offsets", "commit")


@pytest.fixture
def unanswered(system: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> Callable[..., System]:
    """Runs `run_joiner` to the end of the story while the calls of these steps are not answered."""

    def run(timeouts: dict[int, Fate], unconfirmed: Set[int] = frozenset()) -> System:
        made = system(partitions=2)
        made.bus.timeouts, made.bus.unconfirmed = timeouts, set(unconfirmed)
        monkeypatch.setattr(service, "wire", lambda _kafka: made.wiring)
        until_read = UntilRead(made.bus, made.wiring)
        while not until_read.is_set() or not made.is_committed():
            run_joiner(made.settings, until_read if not until_read.is_set() else Begun(made))  # type: ignore[arg-type]
        return made

    return run


class Begun(UntilRead):
    """Of a start with nothing left to read: it stops once it has read what is not committed."""

    def __init__(self, made: System) -> None:
        super().__init__(made.bus, made.wiring)
        made.bus.read = {}


def test_whatever_became_of_an_unanswered_call_nothing_is_lost_or_doubled(
    unanswered: Callable[..., System],
) -> None:
    calm = unanswered({})
    wanted = calm.outcome()

    tried = dict.fromkeys(CALLS, 0)
    for step, name in enumerate(calm.bus.steps):
        for fate in Fate if name == "commit" else (Fate.NEVER,) if name in CALLS else ():
            troubled = unanswered({step: fate})
            assert troubled.outcome() == wanted, f"step {step}: {name}, {fate}"
            after = troubled.bus.steps[step + 1 : step + 2]
            assert after in ([], ["init"]), "the producer was not used again"
            tried[name] += 1
    assert tried["commit"] == 3 * tried["offsets"] >= 30


def test_a_record_that_was_not_confirmed_is_never_left_out(unanswered: Callable[..., System]) -> None:
    calm = unanswered({})
    produced = [step for step, name in enumerate(calm.bus.steps) if name == "produce"]
    for step in produced:
        assert unanswered({}, {step}).outcome() == calm.outcome(), f"step {step}"
    assert len(produced) >= 30


@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(timeouts=st.dictionaries(st.integers(0, 160), st.sampled_from(list(Fate)), max_size=40))
def test_many_unanswered_calls_in_one_run(unanswered: Callable[..., System], timeouts: dict[int, Fate]) -> None:
    wanted = unanswered({}).outcome()

    assert unanswered(timeouts).outcome() == wanted
