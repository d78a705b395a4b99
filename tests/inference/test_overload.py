"""More requests than can be answered: told so, none lost, none held in memory, and all is well afterwards."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inference.engine.search import Engine
from inference.worker.queue import RequestQueue
from onerec.kafka import admin
from onerec.settings import KafkaSettings
from schemas.records import Status
from schemas.topics import REQUESTS
from tests.inference.loop import World, running
from tests.inference.publishing import Publisher, random_weights, settings_of

pytestmark = pytest.mark.broker
BATCH_S = 0.1
"""What the engine takes for a batch of eight: eighty requests a second."""
FLOOD = 1200


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the request queue was after each request that it took."""
    lengths: list[int] = [0]
    add = RequestQueue.add

    def counted(queue: RequestQueue, *args: Any, **kwargs: Any) -> None:
        add(queue, *args, **kwargs)
        lengths[0] = max(lengths[0], len(queue))

    monkeypatch.setattr(RequestQueue, "add", counted)
    return lengths


@pytest.fixture
def slow_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose capacity is known whatever else the machine does."""
    generate = Engine.generate

    def slowed(engine: Engine, *args: Any, **kwargs: Any) -> Any:
        time.sleep(BATCH_S)
        return generate(engine, *args, **kwargs)

    monkeypatch.setattr(Engine, "generate", slowed)


@pytest.mark.usefixtures("slow_engine")
def test_a_flood_is_answered_in_time_or_told_that_it_cannot_be(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_of(kafka, tmp_path, worker={"deadline_ms": 2000}, decoding={"beam_width": 16})
    world = World(settings)
    world.items(range(100))
    Publisher(settings).publish(1, random_weights(1))
    with running(settings) as worker:
        worker.wait_ready()
        flood = [world.ask(user) for user in range(FLOOD)]
        world.wait(flood)
        while world.answer(world.ask(1)).status is not Status.ANSWERED:  # the flood is over: all is well
            pass
    answers = [world.answers[number] for number in flood]
    assert all(len(told) == 1 for told in answers), "each has one answer"
    statuses = Counter(told[0].status for told in answers)
    assert set(statuses) == {Status.ANSWERED, Status.OVERLOADED}
    assert statuses[Status.OVERLOADED] > FLOOD / 2, "fifteen times what fits into the deadline"
    for (told,) in answers:
        if told.status is Status.ANSWERED:
            assert told.latency_ms <= 2000
        else:
            assert told.reason
            assert not told.ranked
    assert sum(admin.committed(kafka, "worker", REQUESTS).values()) == len(world.answers)
    world.close()


def test_patient_requests_wait_with_the_broker_not_in_memory(
    kafka: KafkaSettings, tmp_path: Path, longest: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.worker.intake.READ", 16)
    worker_settings = {"deadline_ms": 600_000, "max_waiting": 50, "max_batch": 32}
    settings = settings_of(kafka, tmp_path, worker=worker_settings, decoding={"beam_width": 4})
    world = World(settings)
    patient = [world.ask(user, items=1) for user in range(600)]
    world.history(1, [1001])  # waits until the broker has the requests, too
    assert sum(admin.end_offsets(kafka, REQUESTS).values()) == 600
    with running(settings) as worker:
        world.items(range(100))
        Publisher(settings).publish(1, random_weights(1))
        world.wait(patient)
        worker.wait_ready()
    assert longest[0] <= 50 + 16
    assert all([told.status for told in world.answers[number]] == [Status.ANSWERED] for number in patient)
    world.close()
