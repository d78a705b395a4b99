"""One batch of requests through the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from inference.engine.search import Engine
from inference.histories import HistoryStore
from inference.weights import ServedVersion
from inference.worker import metrics
from inference.worker.answers import Answers, Source, invalid_items, refusal
from inference.worker.limits import TagIndex, allowed_items, excluded_leaves, stacked
from inference.worker.stages import Laps
from inference.worker.widths import decoding_widths
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.settings import Settings
from schemas.records import Recommendation, Request, Status

LOG = logging.getLogger(__name__)


class Recommender:
    """Answers requests with a version of the model, a snapshot of the catalogue and the users' histories."""

    def __init__(self, settings: Settings, histories: HistoryStore) -> None:
        self._decoding = settings.inference.decoding
        self._session = settings.inference.worker.session
        self._histories = histories
        self._tags = TagIndex()
        self._validity = metrics.Validity()

    def answer(
        self, requests: Sequence[Request], served: ServedVersion[Engine], snapshot: CatalogueSnapshot
    ) -> list[Recommendation]:
        """One answer for each request, in order. A request that fails does not take the batch with it."""
        try:
            return self._answer(requests, served, snapshot)
        except Exception as error:
            LOG.exception("decoding %d requests failed", len(requests))
            if len(requests) > 1:
                return [self.answer([request], served, snapshot)[0] for request in requests]
            reason = f"decoding failed: {error}"
            return [refusal(requests[0], Status.REFUSED, reason, Source(served.version, snapshot), _now_ms())]

    def _answer(
        self, requests: Sequence[Request], served: ServedVersion[Engine], snapshot: CatalogueSnapshot
    ) -> list[Recommendation]:
        source = Source(served.version, snapshot)
        answers: list[Recommendation | None] = [self._refused(request, source) for request in requests]
        open_rows = [row for row, answer in enumerate(answers) if answer is None]
        asked = [requests[row] for row in open_rows]
        if asked:
            for row, answer in zip(open_rows, self._decoded(asked, served, snapshot), strict=True):
                answers[row] = answer
        return [answer for answer in answers if answer is not None]

    def _refused(self, request: Request, source: Source) -> Recommendation | None:
        limit = self._decoding.beam_width
        if request.items <= limit:
            return None
        reason = f"{request.items} items were asked for, this worker ranks at most {limit} (its beam width)"
        return refusal(request, Status.REFUSED, reason, source, _now_ms())

    def _decoded(
        self, requests: list[Request], served: ServedVersion[Engine], snapshot: CatalogueSnapshot
    ) -> list[Recommendation]:
        started, laps = time.perf_counter(), Laps(len(requests))
        engine = served.engine
        histories = self._histories.get(request.user_id for request in requests)
        masks = [allowed_items(request, snapshot, self._tags) for request in requests]
        batch = history_batch(histories, snapshot, engine.config)
        exclude = [
            torch.from_numpy(excluded_leaves(request, history.items, snapshot))
            for request, history in zip(requests, histories, strict=True)
        ]
        allowed = stacked(masks, len(snapshot))
        laps.end("prepared")
        generated = engine.generate(
            batch,
            snapshot,
            beam_width=decoding_widths(self._decoding, engine.config),
            items=None if self._session else 1,
            exclude=exclude,
            allowed=allowed,
        )
        laps.end("decoded")
        answers = Answers(generated, snapshot, served.version, session=self._session)
        lengths = _known_items(histories, snapshot, engine.config.history_items)
        records = [
            self._record(answers, row, request, lengths[row], Source(served.version, snapshot))
            for row, request in enumerate(requests)
        ]
        laps.end("recorded")
        self._count_memories(engine)
        metrics.BATCH.observe(len(requests))
        metrics.DECODE.observe((time.perf_counter() - started) / len(requests))
        return records

    def _record(self, answers: Answers, row: int, request: Request, length: int, source: Source) -> Recommendation:
        now_ms = _now_ms()
        if not answers.has_items(row):
            reason = "no item of the catalogue is left by the request's constraints and the user's seen items"
            return refusal(request, Status.REFUSED, reason, source, now_ms)
        record = answers.record(row, request, length, now_ms)
        if source.snapshot is not None:
            invalid = invalid_items(record, source.snapshot)
            self._validity.observe(len(record.session) + len(record.ranked), invalid)
            if invalid:
                LOG.error("request %d: %d returned items do not exist or repeat", request.request_id, invalid)
        if length == 0:
            metrics.UNKNOWN.inc()
        return record

    @staticmethod
    def _count_memories(engine: Engine) -> None:
        """How often a history was found encoded."""
        if engine.memories is not None:
            hits, misses = engine.memories.take_counts()
            metrics.MEMORIES.labels("found").inc(hits)
            metrics.MEMORIES.labels("encoded").inc(misses)


def _known_items(histories: Sequence[HistoryArrays], snapshot: CatalogueSnapshot, limit: int) -> NDArray[np.int64]:
    """How many exposures [B] of each history the model reads."""
    return np.array([min(int((snapshot.leaves(h.items) >= 0).sum()), limit) for h in histories], np.int64)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
