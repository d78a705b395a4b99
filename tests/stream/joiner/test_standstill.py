"""After both inputs have stood still, one of them is fetched first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message

from onerec.settings import JoinerSettings
from onerec.state.store import LocalStore
from schemas.records import Impression
from schemas.topics import id_key
from stream.joiner.intake import Intake
from stream.joiner.items import AnyItem
from stream.joiner.partition import Partition
from stream.joiner.watermark import INPUTS
from tests.stream.joiner.events import Event, impression, view
from tests.stream.joiner.test_state import WIRING

NOW_MS = 1_650_000_000_000
IDLE_CLOSE_S = 1000.0
WINDOW_MS = 15_000


def messages(events: Sequence[Event]) -> list[Message]:
    codecs = (WIRING.impression_codec, WIRING.action_codec)
    sources = [0 if isinstance(event, Impression) else 1 for event in events]
    return [
        Message(
            topic=WIRING.inputs[source],
            partition=0,
            offset=offset,
            key=id_key(event.user_id),
            value=codecs[source].encode(event),
            timestamp=(1, event.time_ms),
        )
        for offset, (source, event) in enumerate(zip(sources, events, strict=True))
    ]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("first", INPUTS)
def test_no_action_is_late_because_it_is_fetched_after_its_impression(
    tmp_path: Path, first: int, *, compiled: bool
) -> None:
    """Four minutes of events come at once, as when a log is replayed faster than it was written."""
    settings = JoinerSettings(feedback_window_ms=WINDOW_MS, idle_close_s=IDLE_CLOSE_S, compiled=compiled)
    partition = Partition(0, LocalStore(tmp_path / "state", "test"), (0, 0), WIRING, settings)
    now_s = time.monotonic()
    for one in partition.inputs:
        one.reached(0)
        one.moved_s = now_s - 2 * IDLE_CLOSE_S
    partition.advance(now_s)

    times = [NOW_MS + 10_000 * place for place in range(24)]
    shown = [impression(place, time_ms, request=place) for place, time_ms in enumerate(times)]
    watched = [view(place, time_ms + 9_000, 9_000, request=place) for place, time_ms in enumerate(times)]
    intake = Intake(WIRING, settings, AnyItem())
    for events in (shown, watched) if first == 0 else (watched, shown):
        intake.take(messages(events), {0: partition})
        partition.advance(time.monotonic())
    for one in partition.inputs:
        one.reached(len(times))
        one.moved_s = now_s - 2 * IDLE_CLOSE_S
    partition.advance(time.monotonic())

    work = partition.work()
    assert work is not None
    assert work.tally.refusals == []
    assert work.tally.events == 2 * len(times)
    assert work.tally.late_impressions == 0
