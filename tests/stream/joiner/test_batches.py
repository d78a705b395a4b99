"""How the log is cut into batches, partitions and lives of a joiner is nothing that its output depends on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.recovery.bus_clients import connect
from tests.stream.joiner.events import Event, action, impression, visits
from tests.stream.joiner.system import JOINER, LAST_MS, Outcome, System

MEMORY = Path("/dev/shm")
USERS = (1, 2)


def outcome_of(events: list[Event], *, batch: int, partitions: int, lives: int = 1) -> Outcome:
    """What a joiner makes of these events; with more than one life it is stopped and restored on the way."""
    directory = Path(tempfile.mkdtemp(prefix="joiner-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with pytest.MonkeyPatch.context() as patch:
            system = System(directory / "state", batch=batch, partitions=partitions, events=[])
            connect(patch, system.bus)
            size = -(-len(events) // lives)
            for life in range(lives):
                for event in events[life * size : (life + 1) * size]:
                    system.publish(event)
                system.live()
            return system.outcome()
    finally:
        shutil.rmtree(directory)


@hypothesis_settings(max_examples=25, report_multiple_bugs=False)
@given(
    events=visits(span_ms=200, window_ms=JOINER.feedback_window_ms),
    batch=st.integers(1, 40),
    partitions=st.integers(1, 2),
    lives=st.integers(1, 3),
)
def test_batches_partitions_and_restarts_change_nothing(
    events: list[Event], batch: int, partitions: int, lives: int
) -> None:
    ordered = sorted(events, key=lambda event: event.time_ms)
    for user in USERS:  # time passes in both inputs of each user's partition: all before that falls due
        ordered += [impression(9, LAST_MS, user=user, request=99), action(9, LAST_MS, user=user, request=99)]

    found = outcome_of(ordered, batch=batch, partitions=partitions, lives=lives)

    wanted = outcome_of(ordered, batch=1000, partitions=1)
    assert found.sessions == wanted.sessions
    assert found.histories == wanted.histories
    assert sorted(reason for _, _, reason in found.refused) == sorted(reason for _, _, reason in wanted.refused)  # type: ignore[misc]
    assert sum(found.offsets.values()) == sum(wanted.offsets.values()) == len(ordered)
