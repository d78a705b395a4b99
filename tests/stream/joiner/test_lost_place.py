"""A joiner that loses its partitions while it restores them, and has them again before it looks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from onerec.settings import Settings
from stream.joiner.items import AnyItem
from stream.joiner.service import Failures, Joiner
from tests.stream.joiner.events import Event
from tests.stream.joiner.system import System, UntilRead, story

EARLY = story()[: len(story()) // 2]
LATE = story()[len(story()) // 2 :]


@pytest.mark.parametrize("turns_awake", [0, 1, 2, 3])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_another_joiner_went_on_with_meanwhile_is_not_joined_again(
    system: Callable[..., System], turns: int, turns_awake: int
) -> None:
    calm = run(system, EARLY + LATE)
    running = run(system, EARLY)
    for event in LATE:
        running.publish(event)

    with running.bus.life(None), closing(joiner(running, "0")) as sleeper:
        for _ in range(turns):  # it asks for the committed offsets, begins to read its state, ...
            sleeper.turn()
        place = sleeper._assignment.consumer
        with closing(joiner(running, "1")) as other:
            other.run(UntilRead(running.bus, running.wiring))  # type: ignore[arg-type]
        for _ in range(turns_awake):  # before the group's word has come it reads what the other has written
            sleeper._assignment.restore(0.0)
        place.lose_place()  # type: ignore[attr-defined]
        sleeper.run(UntilRead(running.bus, running.wiring))  # type: ignore[arg-type]

    assert running.outcome() == calm.outcome()


def run(system: Callable[..., System], events: list[Event]) -> System:
    new = system(events=events)
    new.live()
    return new


def joiner(running: System, instance: str) -> Joiner:
    settings = running.settings.model_dump()
    settings["stream"]["joiner"]["instance"] = instance
    return Joiner(
        Settings.model_validate(settings), running.wiring, AnyItem(), Failures(running.settings.kafka, instance)
    )
