"""The worker on a real broker, with everything real around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from inference.worker.stages import STAGES
from onerec.kafka import admin
from onerec.settings import KafkaSettings, Settings
from schemas.packed import pack_longs
from schemas.records import Status
from schemas.topics import REQUESTS
from tests.inference.loop import World, running
from tests.inference.publishing import Publisher, random_weights, settings_of

pytestmark = pytest.mark.broker
ITEMS = range(100)


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000}, decoding={"beam_width": 16})


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """A catalogue, three histories and a version of the model."""
    world = World(settings)
    world.items(ITEMS)
    world.history(1, [1001, 1002, 1003])
    world.history(2, [1050, 999_999])
    Publisher(settings).publish(1, random_weights(1, scale=2.0))
    yield world
    world.close()


def test_answers_constraints_and_new_items(settings: Settings, world: World) -> None:
    with running(settings) as worker:
        worker.wait_ready()
        plain = world.ask(1)
        unknown = world.ask(77)
        tagged = world.ask(1, tags=("even",), max_duration_ms=60_000)
        named = world.ask(2, exclude_items=pack_longs(range(1000, 1090)))
        nothing = world.ask(1, tags=("no such tag",))
        greedy = world.ask(1, items=17)
        short = world.ask(1, exclude_items=pack_longs(range(1000, 1098)))
        known = {1000 + number for number in ITEMS}

        answer = world.answer(plain)
        assert answer.status is Status.ANSWERED
        assert answer.model_version == 1
        assert answer.catalogue_offset == 100
        assert answer.history_length == 3
        assert [len(answer.session), len(answer.ranked)] == [3, 10]
        assert answer.session_log_prob == pytest.approx(sum(item.log_prob for item in answer.session))
        assert [item.log_prob for item in answer.ranked] == sorted((i.log_prob for i in answer.ranked), reverse=True)
        for items in (answer.session, answer.ranked):
            assert {item.item_id for item in items} <= known - {1001, 1002, 1003}, "seen items stay out"
            assert len({item.item_id for item in items}) == len(items)
        assert world.answer(unknown).status is Status.ANSWERED
        assert world.answer(unknown).history_length == 0
        assert len(world.answer(unknown).session) == 3
        for item in world.answer(tagged).session + world.answer(tagged).ranked:
            assert item.item_id % 2 == 0
            assert item.item_id <= 1060
        assert world.answer(named).history_length == 1, "the catalogue does not know the other one"
        assert {item.item_id for item in world.answer(named).ranked} <= set(range(1090, 1100))
        assert world.answer(nothing).status is Status.REFUSED
        assert "no item" in str(world.answer(nothing).reason)
        assert "at most 16" in str(world.answer(greedy).reason)
        assert {item.item_id for item in world.answer(short).session} == {1098, 1099}, "two items are left of three"

        world.items([200])
        only_new = pack_longs(range(1000, 1100))
        while True:  # the catalogue takes the item within a second
            cold = world.answer(world.ask(1, exclude_items=only_new))
            if cold.status is Status.ANSWERED:
                break
        assert [item.item_id for item in cold.ranked] == [1200]
        assert cold.catalogue_offset == 101
    assert sum(admin.committed(settings.kafka, "worker", REQUESTS).values()) == len(world.answers)


def stage(name: str, what: str) -> float:
    return REGISTRY.get_sample_value(f"inference_worker_stage_seconds_{what}", {"stage": name}) or 0.0


def test_the_time_of_each_answer_is_told_by_stages(settings: Settings, world: World) -> None:
    before = {(name, what): stage(name, what) for name in STAGES for what in ("count", "sum")}
    with running(settings) as worker:
        worker.wait_ready()
        answers = [world.answer(world.ask(user)) for user in (1, 2, 77)]
    assert {answer.status for answer in answers} == {Status.ANSWERED}
    assert [stage(name, "count") - before[name, "count"] for name in STAGES] == [3] * len(STAGES)
    for name in ("queued", "prepared", "decoded", "recorded", "delivered"):
        assert stage(name, "sum") > before[name, "sum"], name
    assert REGISTRY.get_sample_value("inference_worker_kernels", {"kernels": "torch"}) == 1, "none fit preset tiny"


def test_a_swap_mid_stream_loses_no_request_and_mixes_no_versions(settings: Settings, world: World) -> None:
    publisher = Publisher(settings)
    publisher.publish(1, random_weights(1, scale=2.0), announce=False)
    with running(settings) as worker:
        worker.wait_ready()
        asked = []
        for version in range(2, 6):
            asked += [world.ask(user) for user in range(1, 40)]
            publisher.publish(version, random_weights(version, scale=2.0))
            world.wait(asked)
        asked.append(world.ask(1))
        while world.answer(asked[-1]).model_version < 5:
            asked.append(world.ask(1))
    assert all(len(world.answers[number]) == 1 for number in asked)
    assert all(world.answers[number][0].status is Status.ANSWERED for number in asked)
    by_version: dict[int, set[tuple[int, ...]]] = {}
    for number in asked:
        answer = world.answers[number][0]
        if answer.user_id == 1:
            ranked = tuple(item.item_id for item in answer.ranked)
            by_version.setdefault(answer.model_version, set()).add(ranked)
    assert len(by_version) > 1
    assert all(len(ranked) == 1 for ranked in by_version.values()), "a version always answers alike"
    assert len(set.union(*by_version.values())) == len(by_version), "and otherwise than the others"


def test_late_requests_are_told_so(settings: Settings, world: World) -> None:
    stale = [world.ask(user, age_ms=90_000) for user in range(20)]
    own = world.ask(1, age_ms=500, deadline_ms=100)
    with running(settings):
        fresh = world.ask(1)
        for number in (*stale, own):
            answer = world.answer(number)
            assert answer.status in {Status.OVERLOADED, Status.REFUSED}
            assert answer.reason
            assert not answer.ranked
        assert world.answer(fresh).status is Status.ANSWERED


def test_without_a_model_it_says_so_and_answers_once_there_is_one(kafka: KafkaSettings, tmp_path: Path) -> None:
    settings = settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000}, decoding={"beam_width": 16})
    world = World(settings)
    with running(settings) as worker:
        early = world.answer(world.ask(1, deadline_ms=500))
        assert early.status is Status.REFUSED
        assert early.reason == "no version of the model has been loaded yet"
        patient = world.ask(1)
        world.items(ITEMS)
        Publisher(settings).publish(1, random_weights(1))
        assert world.answer(patient).status is Status.ANSWERED
        worker.wait_ready()
    world.close()


def test_a_restarted_worker_goes_on_where_it_stopped(settings: Settings, world: World) -> None:
    with running(settings):
        first = [world.ask(user) for user in range(5)]
        world.wait(first)
    world.history(5, [1010])
    second = [world.ask(user) for user in range(5, 10)]
    with running(settings):
        world.wait(second)
    assert all(len(world.answers[number]) == 1 for number in first + second), "nothing is answered twice"
    assert [world.answers[number][0].history_length for number in (first[1], first[2], second[0])] == [3, 1, 1]


def test_a_shadow_worker_ranks_with_a_pinned_version_into_its_own_topic(
    kafka: KafkaSettings, tmp_path: Path, world: World
) -> None:
    worker = {"pin_version": 1, "session": False, "output_topic": "recommendations-shadow", "group": "shadow"}
    settings = settings_of(kafka, tmp_path, worker=worker | {"deadline_ms": 60_000}, decoding={"beam_width": 16})
    publisher = Publisher(settings)
    publisher.publish(1, random_weights(1, scale=2.0), announce=False)
    publisher.publish(2, random_weights(2, scale=2.0))
    with running(settings) as shadow:
        shadow.wait_ready()
        number = world.ask(1)
        answers = World(settings)
        answer = answers.answer(number)
        answers.close()
    assert answer.model_version == 1
    assert answer.session == ()
    assert len(answer.ranked) == 10
    assert number not in world.answers
