"""What comes again from before the place where the joiner stands is passed over: it is joined already."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.settings import JoinerSettings
from onerec.state.store import LocalStore
from stream.joiner.intake import Intake
from stream.joiner.items import AnyItem
from stream.joiner.partition import Partition
from tests.stream.joiner.events import impression, view
from tests.stream.joiner.test_standstill import NOW_MS, WINDOW_MS, messages
from tests.stream.joiner.test_state import WIRING

COUNT = 8


@pytest.mark.parametrize("compiled", [True, False])
def test_actions_that_come_again_are_neither_joined_nor_refused(tmp_path: Path, *, compiled: bool) -> None:
    """As after a restart whose seek is overtaken by a fetch from the topic's beginning."""
    settings = JoinerSettings(feedback_window_ms=WINDOW_MS, compiled=compiled)
    partition = Partition(0, LocalStore(tmp_path / "state", "test"), (0, 0), WIRING, settings)
    intake = Intake(WIRING, settings, AnyItem())
    times = [NOW_MS + 60_000 * place for place in range(COUNT)]
    shown = messages([impression(place, time_ms, request=place) for place, time_ms in enumerate(times)])
    watched = messages([view(place, time_ms + 9_000, 9_000, request=place) for place, time_ms in enumerate(times)])
    intake.take(shown, {0: partition})
    intake.take(watched[: COUNT - 1], {0: partition})
    partition.advance(0.0)
    first = partition.work()
    assert first is not None
    assert first.sessions, "the earliest have closed: their actions would be late now"

    intake.take(watched[: COUNT - 2], {0: partition})
    assert partition.next_offsets == (COUNT, COUNT - 1)
    intake.take(watched, {0: partition})
    assert partition.next_offsets == (COUNT, COUNT)
    intake.take(shown[:3], {0: partition})
    partition.advance(0.0)
    again = partition.work()
    assert again is not None
    assert again.tally.refusals == []
    assert again.tally.events == 1, "the one action that was new"
