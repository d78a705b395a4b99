"""When a live step starts: its sessions' waiting counts from when they were read, not from when somebody asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onerec.kafka.writer import RecordWriter
from onerec.model.presets import preset
from onerec.settings import KafkaSettings, TrainerSettings
from schemas.topics import SESSIONS
from tests.trainer import toy
from tests.trainer.world import World
from trainer.guard import first_offsets
from trainer.supply import Supply

pytestmark = pytest.mark.broker

HOUR_MS = 3_600_000
DEADLINE_S = 60.0
Supplies = Callable[[int], Supply]


@pytest.fixture
def supplies(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Supplies]:
    """Makes a supply with this `batch_wait_ms`; two sessions lie on the topic."""
    World(kafka, tmp_path).publish_catalogue()
    writer = RecordWriter(kafka)
    for number in (1, 2):
        writer.send(SESSIONS, b"7", toy.session(number, [number]), timestamp_ms=number, partition=0)
    writer.flush(DEADLINE_S)
    made: list[Supply] = []

    def make(batch_wait_ms: int) -> Supply:
        settings = TrainerSettings(batch_wait_ms=batch_wait_ms)
        made.append(Supply(kafka, preset("tiny"), settings, first_offsets(kafka)))
        return made[-1]

    yield make
    for supply in made:
        supply.close()


def read(supply: Supply) -> None:
    """Read both sessions, and the catalogue, without which the trainer asks for no step."""
    deadline_s = time.monotonic() + DEADLINE_S
    while supply.intake.waiting(SESSIONS) < 2 or not supply.catalogue_size:
        assert time.monotonic() < deadline_s
        supply.intake.poll(0.05)
        supply.refresh()


def test_what_has_waited_long_enough_is_learned_at_once(supplies: Supplies) -> None:
    """A step took long, and its successors' sessions came meanwhile: nobody waits for further ones."""
    supply = supplies(500)
    read(supply)
    since_s = supply.intake.waiting_since(SESSIONS)
    assert since_s is not None
    while time.monotonic() < since_s + 0.5:  # the step before is under way
        time.sleep(0.01)
    asked: list[bool] = []

    def asks() -> bool:
        asked.append(True)
        return True

    supplied = supply.live(asks)
    assert supplied is not None
    assert (len(supplied.step_input.sessions), len(asked)) == (2, 1), "it looked once and did not wait"
    assert supplied.read_s == since_s


def test_what_waits_when_a_version_is_due_goes_into_it(supplies: Supplies) -> None:
    """Else it would wait for its batch first, and for the next version after that."""
    supply = supplies(HOUR_MS)
    read(supply)
    due_s = time.monotonic() + 0.3
    supplied = supply.live(lambda: time.monotonic() < due_s + DEADLINE_S, version_due_s=due_s)
    assert due_s <= time.monotonic() < due_s + DEADLINE_S
    assert supplied is not None
    assert len(supplied.step_input.sessions) == 2


def test_a_version_that_has_learned_something_waits_for_nothing_more(supplies: Supplies) -> None:
    supply = supplies(HOUR_MS)
    read(supply)
    assert supply.live(lambda: False) is not None
    ends_s = time.monotonic() + DEADLINE_S
    assert supply.live(lambda: time.monotonic() < ends_s, version_due_s=0.0, has_learned=True) is None
    assert time.monotonic() < ends_s
