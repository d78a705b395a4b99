"""The cascade as a service: answers requests through Kafka as a worker does, with models trained at its start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from evaluation.ab.protocol import CASCADE, TOPICS, Form, arm_of
from evaluation.ab.warm_up import warm_exposures
from evaluation.baselines.attributes import ItemAttributes
from evaluation.baselines.cascade import Cascade, Sizes
from evaluation.baselines.multi_objective import ObjectiveModel, PreRanker, Ranker
from evaluation.baselines.sasrec import SASRec
from evaluation.baselines.sequences import Longs, Sequences, sequence_batch
from evaluation.baselines.training import SequenceModel, Training, train
from evaluation.baselines.transformer import TrunkSettings
from evaluation.table1.protocol import HISTORY_ITEMS, SESSION_ITEMS
from evaluation.table1.world import EVERYTHING, with_long_views
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
from stream.replay.log import Exposures, Histories, Items, Log

LOG = logging.getLogger(__name__)
TRUNK = TrunkSettings(length=HISTORY_ITEMS)
POLL_S = 0.05
RESTORE_S = 120.0
BATCH = 64
SIZES = Sizes(retrieved=500, pre_ranked=100)
"""Users judge by what they watch, so the rankers have more to choose from than where logged exposures judge."""
TOPIC: Topic = replace(RECOMMENDATIONS, name=TOPICS[CASCADE])


def run_cascade(settings: Settings, form: Form, seed: int, stop: Stop, log: Log | None = None) -> None:
    """Train, then answer the requests of the arm's users until stopped. Raises DependencyMissingError for no broker."""
    torch.set_num_threads(1)
    admin.create_topics(settings.kafka, topics=(TOPIC,))
    source = log or KuaiRand()
    items, histories, exposures = source.items(), source.histories(EVERYTHING), source.exposures()
    past = past_of(items, histories, warm_exposures(exposures, form.warm_exposures), form.cascade_users)
    cascade = trained(items, past, form.cascade_epochs, seed)
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


def past_of(items: Items, histories: Histories, warm: Exposures, users: int | None) -> Sequences:
    """What the cascade learns from: histories of `users` users (all by default), and the warm-up's exposures."""
    kept = np.isin(histories.user_ids, warm.user_ids)
    if users is None:
        kept[:] = True
    else:
        kept[np.flatnonzero(~kept)[: max(0, users - int(kept.sum()))]] = True
    sizes = np.diff(histories.starts)
    events = np.repeat(kept, sizes)
    owner = np.concatenate([np.repeat(histories.user_ids, sizes)[events], warm.user_ids])
    order = np.argsort(owner, kind="stable")  # histories first, then the warm-up in time order
    rows = rows_of(items.item_ids, np.concatenate([histories.items[events], warm.item_ids]))[order]
    labels = np.concatenate([histories.labels[events], with_long_views(warm)])[order]
    watch_ms = np.concatenate([np.full(int(events.sum()), -1), warm.watch_ms])[order]
    met = rows >= 0
    starts = np.searchsorted(owner[order][met], np.append(np.unique(owner), np.iinfo(np.int64).max))
    return Sequences(starts, rows[met], labels[met], watch_ms[met])


def rows_of(known: Longs, item_ids: Longs) -> Longs:
    """The place of each item in `known`, -1 where it is not there."""
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], item_ids), len(known) - 1)
    found: Longs = np.where(known[order][at] == item_ids, order[at], -1)
    return found


def trained(items: Items, past: Sequences, epochs: int, seed: int) -> Cascade:
    """All three stages."""
    attributes, training = ItemAttributes.of(items), Training(epochs=epochs)

    def stage(make: Callable[[], SequenceModel]) -> SequenceModel:
        return train(make, past, training, seed)

    retrieval = stage(lambda: SASRec(len(items.item_ids), TRUNK, "softmax"))
    pre_ranker, ranker = stage(lambda: PreRanker(attributes, TRUNK)), stage(lambda: Ranker(attributes, TRUNK))
    assert isinstance(pre_ranker, ObjectiveModel)
    assert isinstance(ranker, ObjectiveModel)
    return Cascade(retrieval, pre_ranker, ranker, SIZES)


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
        rows = [rows_of(self._item_ids, history.items) for history in histories]
        labels = [history.labels[own >= 0] for history, own in zip(histories, rows, strict=True)]
        rows = [own[own >= 0] for own in rows]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
        known = Sequences(starts, np.concatenate(rows), np.concatenate(labels), np.full(int(starts[-1]), -1))
        named = [rows_of(self._item_ids, np.frombuffer(request.exclude_items, "<i8")) for request in requests]
        left_out = [np.concatenate([own, extra[extra >= 0]]) for own, extra in zip(rows, named, strict=True)]
        stages = self._cascade.recommend(sequence_batch(known, np.arange(len(rows)), TRUNK.length), left_out)
        lengths = np.diff(starts).tolist()
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
