"""The system clock steps back and forward by hours under running services; records and clients have the right time."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from onerec.faust_agents import Records
from onerec.settings import KafkaSettings
from onerec.weights.tensors import digest
from schemas.reasons import Reason
from schemas.records import Item, Status
from schemas.topics import DEAD_LETTERS, ITEMS, SESSIONS
from tests.inference.loop import World as Serving
from tests.inference.loop import eventually, running
from tests.inference.publishing import Publisher, random_weights, settings_of
from tests.recovery.stepped_clock import HOUR_S, OwnClock, SteppedClock
from tests.recovery.waves import BY_EVENT_TIME, close_all, wave
from tests.schemas.examples import BY_TYPE
from tests.stream.joiner.running import Feeder, JoinerProcess, records
from tests.stream.joiner.test_service import check_against_oracle
from tests.trainer import toy
from tests.trainer.test_service import learn_all, trainer
from tests.trainer.world import World
from trainer.reproduce import reproduce

STEPS_H = (-5, 3, -7, 0)
BETWEEN_MS = 300_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> OwnClock:
    return OwnClock(monkeypatch)


@pytest.mark.broker
def test_a_joiner_joins_on_whatever_its_clock_does(kafka: KafkaSettings, tmp_path: Path) -> None:
    clock, feeder = SteppedClock(tmp_path / "clock"), Feeder(kafka)
    start_ms = time.time_ns() // 1_000_000
    events = wave(0, start_ms)
    feeder.publish(events)
    with JoinerProcess(kafka, tmp_path, python_path=clock.python_path, **BY_EVENT_TIME) as joiner:
        joiner.until_ready()
        for number, hours in enumerate(STEPS_H, start=1):
            clock.set(hours * HOUR_S)
            coming = wave(number, start_ms + number * BETWEEN_MS)
            events.extend(coming)
            feeder.publish(coming)
            joiner.until(lambda samples: samples.get("stream_joiner_events_total") == len(events))
            behind_s = joiner.metrics().get("onerec_clock_behind_seconds")
            assert behind_s == pytest.approx(HOUR_S * (max(0, *STEPS_H[:number]) - hours), abs=60)
            assert joiner.metrics().get("stream_joiner_watermark_lag_seconds") >= 0
        close_all(kafka, feeder, joiner, events, start_ms + (1 + len(STEPS_H)) * BETWEEN_MS)
        assert joiner.stop() == 0
        assert joiner.output().count("the system clock was set back") == 2
    assert records(kafka, DEAD_LETTERS) == []
    check_against_oracle(kafka, events)
    assert len(records(kafka, SESSIONS)) >= 5 * (1 + len(STEPS_H))


@pytest.mark.broker
def test_a_worker_answers_on_whatever_its_clock_does(kafka: KafkaSettings, tmp_path: Path, clock: OwnClock) -> None:
    settings = settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000})
    world, publisher = Serving(settings), Publisher(settings)
    world.items(range(60))
    publisher.publish(1, random_weights(1))
    with running(settings) as worker:
        worker.wait_ready()
        for version, hours in enumerate(STEPS_H, start=2):
            clock.set(5 * HOUR_S)  # the trainer's, which is another machine's
            record = publisher.publish(version, random_weights(version))
            assert record.created_ms > clock.right_ms() + 4 * HOUR_S * 1000
            clock.set(hours * HOUR_S)
            eventually(lambda: REGISTRY.get_sample_value("inference_worker_newest_version") == version)  # noqa: B023
            answer = world.answer(world.ask(version, age_ms=hours * HOUR_S * 1000))
            if hours <= 0:
                assert (answer.status, answer.latency_ms >= 0) == (Status.ANSWERED, True), answer.reason
            else:
                assert answer.status is Status.OVERLOADED
                assert "if the clocks of client and worker agree" in (answer.reason or "")
        eventually(lambda: world.answer(world.ask(1)).model_version == version)
    world.close()
    assert records(kafka, DEAD_LETTERS) == []


@pytest.mark.broker
def test_a_trainer_trains_on_and_its_successor_knows_all_whatever_its_clock_did(
    kafka: KafkaSettings, tmp_path: Path, clock: OwnClock
) -> None:
    world = World(kafka, tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    with trainer(world) as learning:
        for number, hours in enumerate(STEPS_H, start=1):
            clock.set(hours * HOUR_S)
            world.publish_sessions([toy.session(number, [number])])
            learn_all(learning, sessions=1)
            learning.publish()
        step, expected = learning.state.step, digest(learning.state.weights())
    clock.set(0)
    with trainer(world) as successor:
        assert (successor.state.step, digest(successor.state.weights())) == (step, expected)
        assert successor.publisher.announced == 1 + len(STEPS_H)
    assert [version.version for version in world.versions()] == list(range(1, 2 + len(STEPS_H)))
    assert records(kafka, DEAD_LETTERS) == []
    assert reproduce(world.settings, None, from_seed=True).identical


def test_faust_agents_take_what_is_not_in_the_future_by_a_right_clock(clock: OwnClock) -> None:
    refused: list[Reason] = []
    letters = SimpleNamespace(refuse=lambda **letter: refused.append(letter["reason"]), flush=lambda: None)
    agent = Records(SimpleNamespace(name="tokenizer", kafka=KafkaSettings(), refused=letters), ITEMS, 1)
    item: Item = BY_TYPE[Item]

    def decoded(created_ms: int) -> bool:
        value = agent._codec.encode(dataclasses.replace(item, created_ms=created_ms))
        message = SimpleNamespace(value=value, key=b"1", partition=0, offset=0, timestamp=0.0)
        return agent._decoded(SimpleNamespace(message=message)) is not None

    assert decoded(clock.right_ms())
    clock.set(-5 * HOUR_S)
    assert decoded(clock.right_ms())
    assert refused == []
    assert not decoded(clock.right_ms() + 2 * HOUR_S * 1000)
    assert refused == [Reason.FUTURE]
