"""The closed loop through Kafka: requests out, answers in, and what people did with them out again."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluation.feed import Feed
from evaluation.simulator.driver import Driver, Span
from evaluation.simulator.fit import new_user
from evaluation.simulator.live import Options, People, run_simulate
from onerec.kafka import admin
from onerec.kafka.dead_letters import PassedOver
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings
from schemas.records import Recommendation, RecommendedItem, Request, Status
from schemas.topics import ACTIONS, IMPRESSIONS, RECOMMENDATIONS, REQUESTS, Topic, id_key
from tests.evaluation.simulator.invented import HOUR_MS, ITEMS, NOW, RATES, crowd, simulator

pytestmark = pytest.mark.broker
OTHER = dataclasses.replace(RECOMMENDATIONS, name="recommendations-other")
USERS = 60
REFUSED = 7
"""A user whose requests are refused."""


def answer(request: Request, item_ids: tuple[int, ...], version: int) -> Recommendation:
    items = tuple(RecommendedItem(item_id=item_id, log_prob=-1.0) for item_id in item_ids)
    return Recommendation(
        request_id=request.request_id, user_id=request.user_id, status=Status.ANSWERED, session=items,
        session_log_prob=-1.0, ranked=items, model_version=version, catalogue_offset=0, history_length=0,
        time_ms=request.time_ms, produced_ms=request.produced_ms, latency_ms=1.0,
    )  # fmt: skip


@contextmanager
def answering(kafka: KafkaSettings, topic: Topic, item_ids: tuple[int, ...], version: int) -> Iterator[None]:
    """A worker that recommends the same to everybody, and refuses REFUSED."""
    writer, stopped = RecordWriter(kafka, linger_ms=0), threading.Event()

    def note(received: Received) -> None:
        found = answer(received.record, item_ids, version)
        if found.user_id == REFUSED:
            found = dataclasses.replace(found, status=Status.REFUSED, reason="a test", session=(), ranked=())
        writer.send(topic, id_key(found.user_id), found)

    follower = TopicFollower(kafka, REQUESTS, note, service="test", refused=PassedOver(kafka, "test"))

    def work() -> None:
        while not stopped.is_set():
            follower.poll(0.05)
            writer.poll()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        follower.close()
        writer.flush(60)


def test_each_user_sees_the_own_arm_and_events_come_in_the_order_of_time(kafka: KafkaSettings) -> None:
    admin.create_topics(kafka, topics=(OTHER,))
    people = crowd(USERS, stay=0.0)
    arms = (RECOMMENDATIONS.name, OTHER.name)
    span = Span(NOW, NOW + 3 * HOUR_MS, answer_timeout_s=120.0)
    with answering(kafka, RECOMMENDATIONS, (1, 2, 3), 4), answering(kafka, OTHER, (11, 12), 5):
        driver = Driver(kafka, people, span, lambda user_id: arms[user_id % 2], arms)
        driver.run(Stop("test"))
        driver.close()
    feed, found = Feed(kafka, (REQUESTS, IMPRESSIONS, ACTIONS)), list[Received]()
    feed.read_to_end(found.extend, 60)
    feed.close()
    by_topic: dict[str, list[Received]] = defaultdict(list)
    for received in found:
        by_topic[received.topic.name].append(received)
    assert {name: len(records) for name, records in by_topic.items()} == dict(driver.sent)

    asked = {one.record.request_id: one.record for one in by_topic[REQUESTS.name]}
    shown = [one.record for one in by_topic[IMPRESSIONS.name]]
    assert len(shown) >= USERS - 1
    for record in shown:
        assert record.time_ms > asked[record.request_id].time_ms
        assert record.item_id in ((11, 12) if record.user_id % 2 else (1, 2, 3))
        assert record.model_version == (5 if record.user_id % 2 else 4)
    whole = [visit for visit in people.finished if visit.shown]
    still_there = len(shown) - sum(len(visit.shown) for visit in whole)
    assert 0 <= still_there < USERS

    for name in (IMPRESSIONS.name, ACTIONS.name):
        partitions: dict[int, list[int]] = defaultdict(list)
        for one in by_topic[name]:
            partitions[one.partition].append(one.record.time_ms)
        for times in partitions.values():
            assert times == sorted(times)
    assert driver.unanswered[OTHER.name] >= 1
    assert REFUSED not in {record.user_id for record in shown}


def test_the_command_writes_down_what_was_sent(kafka: KafkaSettings, tmp_path: Path) -> None:
    def invented(count: int | None, seed: int) -> People:
        states = {user_id: new_user(user_id, RATES, 4) for user_id in range(count or 0)}
        return People(simulator(), ITEMS, states)

    options = Options(users=30, hours=2.0, seed=2, summary=tmp_path / "summary.json")
    with answering(kafka, RECOMMENDATIONS, (1, 2, 3), 4):
        found = run_simulate(Settings(kafka=kafka), options, Stop("test"), invented)
    assert json.loads((tmp_path / "summary.json").read_text()) == found
    sent = {topic.name: sum(admin.end_offsets(kafka, topic).values()) for topic in (REQUESTS, IMPRESSIONS, ACTIONS)}
    assert found["records"] == sent
    assert found["exposures"] == sent[IMPRESSIONS.name] >= 29
    assert 0 < found["visits"] <= sent[REQUESTS.name]
    assert found["watch_time_per_visit_s"] > 0


def test_it_ends_once_enough_has_been_shown(kafka: KafkaSettings) -> None:
    span = Span(NOW, NOW + 48 * HOUR_MS, exposures=20, answer_timeout_s=120.0)
    with answering(kafka, RECOMMENDATIONS, (1, 2, 3), 4):
        driver = Driver(kafka, crowd(5), span, lambda _: RECOMMENDATIONS.name, (RECOMMENDATIONS.name,))
        driver.run(Stop("test"))
        driver.close()
    assert 20 <= driver.sent[IMPRESSIONS.name] < 60
