"""The cascade as a service: answers requests through Kafka as a worker does, with models trained at its start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from evaluation.ab.cascade import known_of, past_of, recommended, rows_of, trained
from evaluation.ab.protocol import CASCADE, TOPICS, Form, arm_of
from evaluation.ab.warm_up import warm_exposures
from evaluation.baselines.cascade import Cascade
from evaluation.baselines.sequences import Longs
from evaluation.table1.protocol import SESSION_ITEMS
from evaluation.table1.world import EVERYTHING
from inference.histories import HistoryStore
from onerec.features import HistoryArrays
from onerec.kafka import admin
from onerec.kafka.dead_letters import PassedOver
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import KafkaSettings, Settings
from schemas.records import Recommendation, RecommendedItem, Request, Status
from schemas.topics import HISTORIES, RECOMMENDATIONS, REQUESTS, Topic, id_key
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Log

LOG = logging.getLogger(__name__)
POLL_S = 0.05
RESTORE_S = 120.0
BATCH = 64
TOPIC: Topic = replace(RECOMMENDATIONS, name=TOPICS[CASCADE])


def run_cascade(settings: Settings, form: Form, seed: int, stop: Stop, log: Log | None = None) -> None:
    """Train, then answer the requests of the arm's users until stopped. Raises DependencyMissingError for no broker."""
    torch.set_num_threads(1)
    admin.create_topics(settings.kafka, topics=(TOPIC,))
    source = log or KuaiRand()
    items, histories, exposures = source.items(), source.histories(EVERYTHING), source.exposures()
    past = past_of(items, histories, warm_exposures(exposures, form.warm_exposures), form.cascade_users)
    cascade = trained(items, past, form, seed)
    with HistoryStore(settings.kafka, settings.store.state_dir / "cascade", service="cascade") as known:
        known.assign(range(len(admin.end_offsets(settings.kafka, HISTORIES))))
        known.wait_restored(RESTORE_S)

        def mine(user_id: int) -> bool:
            return arm_of(user_id, seed) == CASCADE

        worker = CascadeWorker(settings.kafka, cascade, items.item_ids, known.get, mine)
        stop.ready()
        try:
            while not stop.is_set():
                known.check()
                worker.turn()
        finally:
            worker.close()


class CascadeWorker:
    """Requests to answers, in batches of what has come."""

    def __init__(
        self,
        kafka: KafkaSettings,
        cascade: Cascade,
        item_ids: Longs,
        histories: Callable[[list[int]], list[HistoryArrays]],
        mine: Callable[[int], bool],
    ) -> None:
        self._cascade, self._item_ids, self._histories, self._mine = cascade, item_ids, histories, mine
        self._writer = RecordWriter(kafka, linger_ms=1)
        self._requests: list[Request] = []
        self._follower = TopicFollower(
            kafka,
            REQUESTS,
            self._note,
            start=admin.end_offsets(kafka, REQUESTS),
            service="cascade",
            refused=PassedOver(kafka, "cascade"),
        )

    def turn(self) -> int:
        """Answer what has come, waiting for it a little; how many answers."""
        self._follower.poll(POLL_S)
        asked, self._requests = self._requests, []
        for first in range(0, len(asked), BATCH):
            for answer in self._answers(asked[first : first + BATCH]):
                self._writer.send(TOPIC, id_key(answer.user_id), answer, timestamp_ms=answer.time_ms)
        self._writer.poll()
        return len(asked)

    def close(self) -> None:
        """Leave the broker."""
        self._writer.flush(10.0)
        self._follower.close()

    def _note(self, received: Received) -> None:
        if self._mine(received.record.user_id):
            self._requests.append(received.record)

    def _answers(self, requests: list[Request]) -> list[Recommendation]:
        histories = self._histories([request.user_id for request in requests])
        users = [known_of(self._item_ids, history.items, history.labels) for history in histories]
        named = [rows_of(self._item_ids, np.frombuffer(request.exclude_items, "<i8")) for request in requests]
        stages = recommended(self._cascade, users, [extra[extra >= 0] for extra in named])
        lengths = [len(user.rows) for user in users]
        return [
            _answer(request, self._items(own, values), length)
            for request, own, values, length in zip(
                requests, stages.ranked.tolist(), stages.values.tolist(), lengths, strict=True
            )
        ]

    def _items(self, rows: list[int], values: list[float]) -> tuple[RecommendedItem, ...]:
        """The items that are possible, best first; a score stands where a log-probability would."""
        pairs = zip(rows, values, strict=True)
        return tuple(RecommendedItem(item_id=int(self._item_ids[row]), log_prob=v) for row, v in pairs if v > -np.inf)


def _answer(request: Request, items: tuple[RecommendedItem, ...], history_length: int) -> Recommendation:
    now_ms = time.time_ns() // 1_000_000
    session = items[:SESSION_ITEMS]
    return Recommendation(
        request_id=request.request_id,
        user_id=request.user_id,
        status=Status.ANSWERED if items else Status.REFUSED,
        reason=None if items else "no item is left",
        session=session,
        session_log_prob=sum(item.log_prob for item in session),
        ranked=items[: request.items],
        model_version=0,
        catalogue_offset=0,
        history_length=history_length,
        time_ms=request.time_ms,
        produced_ms=now_ms,
        latency_ms=max(0.0, float(now_ms - request.produced_ms)),
    )
