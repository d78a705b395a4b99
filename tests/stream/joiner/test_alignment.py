"""One input must not run far ahead of the other."""

from __future__ import annotations

from typing import Any

from confluent_kafka import TopicPartition

from stream.joiner.alignment import SKEW_MS, Alignment
from stream.joiner.joining import Open
from stream.joiner.partition import Input
from stream.joiner.watermark import ACTIONS, IMPRESSIONS, Watermark
from tests.stream.joiner.test_state import WIRING


class Pauses:
    """Remembers which parts a consumer was told to pause."""

    def __init__(self) -> None:
        self.paused: set[tuple[str, int]] = set()

    def pause(self, parts: list[TopicPartition]) -> None:
        self.paused |= {(part.topic, part.partition) for part in parts}

    def resume(self, parts: list[TopicPartition]) -> None:
        self.paused -= {(part.topic, part.partition) for part in parts}


class Standing:
    """A partition as far as alignment looks at it."""

    def __init__(self, impressions_ms: int, actions_ms: int, *, is_open: int) -> None:
        self.watermark = Watermark([impressions_ms, actions_ms])
        self.inputs = [Input(0), Input(0)]
        self.open = Open(impressions=is_open)


def aligned(standing: Standing, alignment: Alignment) -> None:
    partitions: Any = {0: standing}
    alignment.align(partitions)


def test_the_input_ahead_waits_while_much_is_open_and_goes_on_when_the_other_has_caught_up() -> None:
    pauses: Any = Pauses()
    alignment = Alignment(WIRING, pauses, open_limit=10)
    standing = Standing(SKEW_MS + 2, 1, is_open=11)

    aligned(standing, alignment)
    assert pauses.paused == {(WIRING.inputs[IMPRESSIONS], 0)}

    standing.watermark.newest_ms[ACTIONS] = SKEW_MS
    aligned(standing, alignment)
    assert pauses.paused == set()


def test_nothing_waits_while_little_is_open_or_for_an_input_that_has_nothing_more() -> None:
    pauses: Any = Pauses()
    alignment = Alignment(WIRING, pauses, open_limit=10)
    standing = Standing(1, SKEW_MS + 2, is_open=10)
    aligned(standing, alignment)
    assert pauses.paused == set()

    standing.open.impressions = 11
    standing.inputs[IMPRESSIONS].at_end = True
    aligned(standing, alignment)
    assert pauses.paused == set()

    standing.inputs[IMPRESSIONS].at_end = False
    aligned(standing, alignment)
    assert pauses.paused == {(WIRING.inputs[ACTIONS], 0)}
