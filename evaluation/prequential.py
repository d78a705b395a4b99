"""The live evaluator: follows the loop's topics, tests every visit before it is learned from, keeps the figures.

It only reads. On Kafka it sees the very answers that people got, so nothing is simulated: the live system and the
frozen seed are judged by their recommendations, the baselines rank for themselves from the same events.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import metrics
from evaluation.baselines.running import Baselines
from evaluation.feed import Feed, Horizon
from evaluation.leakage import LeakageCheck
from evaluation.scoreboard import LIVE
from evaluation.visits import FROZEN, Answer, VisitEvaluator
from onerec.kafka.admin import end_offsets
from onerec.kafka.reader import Received
from onerec.service import Stop
from onerec.settings import LabelSettings, Settings
from schemas.records import (
    Action,
    ActionKind,
    History,
    Impression,
    ModelVersion,
    Recommendation,
    Request,
    Session,
    Status,
    VersionStatus,
)
from schemas.topics import (
    ACTIONS,
    HISTORIES,
    IMPRESSIONS,
    ITEMS,
    MODEL_VERSIONS,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    SHADOW_RECOMMENDATIONS,
)

LOG = logging.getLogger(__name__)
EVENTS = (REQUESTS, IMPRESSIONS, ACTIONS)
TOPICS = (*EVENTS, RECOMMENDATIONS, SHADOW_RECOMMENDATIONS, SESSIONS, MODEL_VERSIONS, HISTORIES)
POLL_S = 0.2
SHOW_EVERY_S = 2.0
WRITE_EVERY_S = 30.0
END_TIMEOUT_S = 120.0
FROZEN_VERSION = 1


def run_prequential(settings: Settings, report: Path | None, stop: Stop) -> None:
    """Follow the topics until asked to stop, then finish the figures and write them to `report`."""
    items = sum(end_offsets(settings.kafka, ITEMS).values())
    feed = Feed(settings.kafka, TOPICS)
    evaluator = LiveEvaluator(settings, items)
    horizon = Horizon(feed, EVENTS)

    def take(received: list[Received]) -> None:
        for each in received:
            evaluator.take(each)
            if each.topic in (IMPRESSIONS, ACTIONS):  # requests may be asked ahead of their event time
                horizon.saw(each.record.time_ms)

    next_show_s = next_write_s = 0.0
    try:
        feed.read_to_end(take, END_TIMEOUT_S)
        stop.ready()
        while not stop.is_set():
            take(feed.poll(POLL_S))
            evaluator.advance(horizon.reached())
            now_s = time.monotonic()
            if now_s >= next_show_s:
                evaluator.show()
                next_show_s = now_s + SHOW_EVERY_S
            if report is not None and now_s >= next_write_s:
                _write(report, evaluator.report())
                next_write_s = now_s + WRITE_EVERY_S
        feed.read_to_end(take, END_TIMEOUT_S)
    finally:
        feed.close()
    evaluator.finish()
    evaluator.show()
    found = evaluator.report() | {"skipped_records": feed.skipped}
    LOG.info("%s", json.dumps({key: value for key, value in found.items() if not isinstance(value, list)}))
    if report is not None:
        _write(report, found)


class LiveEvaluator:
    """Turns records into what happens to visits."""

    def __init__(self, settings: Settings, items: int) -> None:
        joiner = settings.stream.joiner
        self.leakage = LeakageCheck()
        self.frozen_by_others = 0
        """Answers on the shadow topic that another version than the seed gave."""
        self._labels: LabelSettings = joiner.labels
        self._baselines = Baselines(settings.evaluation, max(items, 1))
        self._visits = VisitEvaluator(settings.evaluation, joiner.feedback_window_ms, self._baselines)
        self._histories: dict[int, History] = {}
        self._first_event_ms: int | None = None
        self._begun = False
        self._take: dict[type, Callable[[Received, Any], None]] = {
            Request: self._request,
            Impression: self._impression,
            Action: self._action,
            Recommendation: self._recommendation,
            Session: self._session,
            ModelVersion: self._version,
            History: self._history,
        }

    def take(self, received: Received) -> None:
        """Take in a record of any of the topics."""
        self._take[type(received.record)](received, received.record)

    def advance(self, horizon_ms: int | None) -> None:
        """Score what is settled now that all events up to `horizon_ms` are known."""
        if horizon_ms:
            self._begin()
            self._visits.advance(horizon_ms)
            metrics.EVENT_TIME.set(horizon_ms / 1000)

    def finish(self) -> None:
        """Score all that is known."""
        self._begin()
        self._visits.finish()

    def show(self) -> None:
        """Set the gauges."""
        metrics.VISITS.set(len(self._visits.scoreboard))
        metrics.LEAKED.set(self.leakage.leaked)
        for system, score in self._visits.scoreboard.rates().items():
            metrics.HIT_RATE.labels(system).set(score.hit)
            metrics.NDCG.labels(system).set(score.ndcg)

    def report(self) -> dict[str, Any]:
        """All figures as JSON can hold them."""
        return {
            **self._visits.scoreboard.summary(),
            "unanswered_visits": dict(self._visits.unanswered),
            "leaked": self.leakage.leaked,
            "leakage_checked": self.leakage.checked,
            "leakage_unchecked": self.leakage.unchecked,
            "answers_ahead_of_history": dict(self._visits.answers_ahead),
            "frozen_answers_by_other_versions": self.frozen_by_others,
        }

    def _begin(self) -> None:
        """Before the first event: the baselines learn the histories of before the stream, and no newer ones."""
        if self._begun or self._first_event_ms is None:
            return
        self._begun = True
        for user_id, history in self._histories.items():
            # An imported history has no times, or times before the stream; the joiner's end with an event of it.
            if np.frombuffer(history.history_times_ms, "<i8").max(initial=0) < self._first_event_ms:
                self._baselines.add_history(user_id, np.frombuffer(history.history_items, "<i8").tolist())
        self._histories.clear()

    def _history(self, _: Received, record: History) -> None:
        earlier = self._histories.get(record.user_id)
        if not self._begun and (earlier is None or record.updated_ms < earlier.updated_ms):
            self._histories[record.user_id] = record

    def _request(self, _: Received, record: Request) -> None:
        self._visits.asked(record.request_id, record.user_id, record.time_ms)

    def _impression(self, _: Received, record: Impression) -> None:
        if self._first_event_ms is None or record.time_ms < self._first_event_ms:
            self._first_event_ms = record.time_ms
        self._visits.exposed(record.request_id, record.user_id, record.item_id, record.time_ms)

    def _action(self, _: Received, record: Action) -> None:
        watched = record.kind is ActionKind.VIEW and self._labels.is_long_view(
            record.watch_ms or 0, record.duration_ms or 0
        )
        if watched or record.kind is ActionKind.LIKE:
            self._visits.liked(record.request_id, record.user_id, record.item_id, record.time_ms)

    def _recommendation(self, received: Received, record: Recommendation) -> None:
        frozen = received.topic == SHADOW_RECOMMENDATIONS
        answered = record.status is Status.ANSWERED
        ranked = tuple(item.item_id for item in record.ranked) if answered else None
        answer = Answer(ranked, record.time_ms, record.history_length)
        self._visits.answered(FROZEN if frozen else LIVE, record.request_id, answer)
        if frozen:
            self.frozen_by_others += answered and record.model_version != FROZEN_VERSION
        elif answered:
            self.leakage.answered(record.request_id, record.model_version)

    def _session(self, received: Received, record: Session) -> None:
        self.leakage.session(received.partition, received.offset, (item.request_id for item in record.items))

    def _version(self, _: Received, record: ModelVersion) -> None:
        if record.status is VersionStatus.PUBLISHED:
            self.leakage.version(record)


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write aside and rename, so that a reader never sees half a report."""
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(found, indent=2) + "\n")
    aside.rename(path)
