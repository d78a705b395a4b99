"""The cascade as a service: answers its users with items that they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.ab.cascade import past_of, rows_of, trained
from evaluation.ab.cascade_worker import TOPIC, CascadeWorker
from evaluation.ab.protocol import SMOKE
from evaluation.ab.warm_up import send_warm_up, warm_exposures
from evaluation.feed import Feed
from evaluation.simulator.fit import is_fitted
from onerec.features import HistoryArrays
from onerec.kafka import admin
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings
from schemas.packed import pack_longs
from schemas.records import Request
from schemas.topics import ACTIONS, IMPRESSIONS, REQUESTS, id_key
from tests.evaluation.streaming.small_stream import FewUsers

NOW = 1_651_000_000_000


def test_the_cascade_learns_from_histories_and_then_the_warm_up() -> None:
    log = FewUsers()
    items, histories, exposures = log.items(), log.histories(1_000_000), log.exposures()
    warm = warm_exposures(exposures, 40)
    assert len(warm) == 40
    assert is_fitted(warm.user_ids).all()
    past = past_of(items, histories, warm, None)
    assert len(past) == len(np.union1d(histories.user_ids, warm.user_ids))
    assert (past.watch_ms >= 0).sum() == len(warm)
    assert len(past.items) == len(histories.items) + len(warm)
    for user in range(len(past)):
        timed = past.watch_ms[past.user(user)] >= 0
        assert timed.tolist() == sorted(timed.tolist())
    fewer = past_of(items, histories, warm, 60)
    assert len(fewer) == 60
    assert (fewer.watch_ms >= 0).sum() == len(warm)


@pytest.mark.broker
def test_it_answers_its_own_users_with_what_they_have_not_seen(kafka: KafkaSettings) -> None:
    admin.create_topics(kafka, topics=(TOPIC,))
    log = FewUsers()
    items = log.items()
    past = past_of(items, log.histories(1_000_000), warm_exposures(log.exposures(), 40), None)
    seen = items.item_ids[past.items[past.user(3)]]
    labels = past.labels[past.user(3)]

    def histories(user_ids: list[int]) -> list[HistoryArrays]:
        known = HistoryArrays(seen, np.zeros_like(seen), labels)
        return [known if user_id == 3 else HistoryArrays.empty() for user_id in user_ids]

    worker = CascadeWorker(
        kafka, trained(items, past, SMOKE, 1), items.item_ids, histories, lambda user_id: user_id < 5
    )
    writer, named = RecordWriter(kafka), items.item_ids[:30].tolist()
    for user_id in (3, 4, 5):
        request = Request(
            request_id=user_id, user_id=user_id, time_ms=NOW, exclude_items=pack_longs(named), produced_ms=NOW
        )
        writer.send(REQUESTS, id_key(user_id), request, timestamp_ms=NOW)
    writer.flush(60)
    while worker.turn() == 0:
        pass
    worker.turn()
    worker.close()
    feed, found = Feed(kafka, (TOPIC,)), list[Received]()
    feed.read_to_end(found.extend, 60)
    feed.close()
    answers = {one.record.user_id: one.record for one in found}
    assert set(answers) == {3, 4}
    for user_id, answer in answers.items():
        ranked = [item.item_id for item in answer.ranked]
        assert len(set(ranked)) == 10
        assert [item.item_id for item in answer.session] == ranked[:5]
        assert (rows_of(items.item_ids, np.array(ranked)) >= 0).all()
        assert not set(ranked) & set(named)
        assert user_id != 3 or not set(ranked) & set(seen.tolist())
    assert answers[3].history_length == len(seen)
    assert answers[4].history_length == 0


@pytest.mark.broker
def test_the_warm_up_has_no_requests(kafka: KafkaSettings) -> None:
    warm = warm_exposures(FewUsers().exposures(), 40)
    sent = send_warm_up(Settings(kafka=kafka), warm, Stop("test"))
    feed, found = Feed(kafka, (IMPRESSIONS, ACTIONS, REQUESTS)), list[Received]()
    feed.read_to_end(found.extend, 60)
    feed.close()
    names = [one.topic.name for one in found]
    assert names.count(IMPRESSIONS.name) == 40
    assert names.count(REQUESTS.name) == 0
    assert len(names) == sent
