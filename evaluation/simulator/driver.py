"""Closes the loop through Kafka: asks as the simulated users do, waits for the answers, sends what they did with them.

Event time goes on in ticks. Within a tick all requests that fall due are asked together; when the answers are there,
the users react, and what they do is sent in the order of event time, each record not before its time. So the joiner
sees a stream such as clients would send. Users come back at the earliest after half an hour of event time, three ticks
later: by then their histories have gone through the joiner.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation import metrics
from evaluation.simulator.crowd import Ask, Crowd, Exposed
from onerec.kafka.admin import end_offsets
from onerec.kafka.dead_letters import PassedOver
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.packed import pack_longs
from schemas.records import Action, ActionKind, Impression, Recommendation, Request, Status
from schemas.topics import ACTIONS, IMPRESSIONS, RECOMMENDATIONS, REQUESTS, Topic, id_key

LOG = logging.getLogger(__name__)
TICK_MS = 600_000
POLL_S = 0.02
FLUSH_S = 60.0
TELL_S = 10.0
REQUESTED_ITEMS = 10
ArmOf = Callable[[int], str]
"""The topic whose answers a user gets to see."""


class Stopped(Protocol):
    """Anything that can be asked whether to end (onerec.service.Stop)."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """Which event time is simulated, and how long an answer is waited for."""

    begin_ms: int
    end_ms: int
    exposures: int | None = None
    """End earlier, after the tick with which so many have been sent."""
    answer_timeout_s: float = 30.0
    report_view_ms: int = 119_000
    """A view is reported when it ends or after so long, before the joiner's feedback window closes."""


class Answers:
    """What has been answered on some topics since this was made."""

    def __init__(self, kafka: KafkaSettings, topics: Mapping[str, Topic]) -> None:
        """Raises DependencyMissingError for no broker or no topic."""
        self._taken: dict[tuple[str, int], Recommendation] = {}
        self._followers = [
            TopicFollower(
                kafka,
                topic,
                self._note,
                start=end_offsets(kafka, topic),
                service="simulator",
                refused=PassedOver(kafka, "simulator"),
            )
            for topic in topics.values()
        ]

    def poll(self) -> None:
        """Take in what has come."""
        for follower in self._followers:
            follower.poll(POLL_S / len(self._followers))

    def take(self, topic: str, request_id: int) -> Recommendation | None:
        """The answer to a request, once."""
        return self._taken.pop((topic, request_id), None)

    def forget(self) -> None:
        """Drop answers that nobody has taken: those of arms that the users do not see."""
        self._taken.clear()

    def close(self) -> None:
        """Leave the broker."""
        for follower in self._followers:
            follower.close()

    def _note(self, received: Received) -> None:
        self._taken[received.topic.name, received.record.request_id] = received.record


class Driver:
    """Runs a crowd against a live system."""

    def __init__(
        self,
        kafka: KafkaSettings,
        crowd: Crowd,
        span: Span,
        arm_of: ArmOf,
        arms: tuple[str, ...],
        *,
        pace: Callable[[], None] = lambda: None,
    ) -> None:
        """`arms` are names of topics with answers; `pace` returns when ten more minutes of event time may pass."""
        self.sent: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self._crowd, self._span, self._arm_of = crowd, span, arm_of
        self._writer = RecordWriter(kafka, linger_ms=1)
        self._answers = Answers(kafka, {arm: dataclasses.replace(RECOMMENDATIONS, name=arm) for arm in arms})
        self._outgoing: list[tuple[int, int, Topic, Any]] = []
        self._numbers = itertools.count()
        self._pace = pace
        self._told_s = time.monotonic()
        self._shown = 0

    def run(self, stop: Stopped) -> None:
        """Simulate the span, or until asked to stop."""
        begin_ms = self._span.begin_ms
        while begin_ms < self._span.end_ms and not stop.is_set() and not self._enough():
            end_ms = min(begin_ms + TICK_MS, self._span.end_ms)
            self._pace()
            while asks := self._crowd.due(end_ms):
                self._ask(asks, stop)
            self._send_before(end_ms)
            self._show()
            self._tell(end_ms)
            begin_ms = end_ms
        self._send_before(2**62)
        self._writer.flush(FLUSH_S)

    def close(self) -> None:
        """Leave the broker."""
        self._answers.close()

    def _enough(self) -> bool:
        return self._span.exposures is not None and self.sent[IMPRESSIONS.name] >= self._span.exposures

    def _ask(self, asks: list[Ask], stop: Stopped) -> None:
        """Ask together, wait for all answers, and let the users react in the order of asking."""
        for ask in asks:
            self._send(REQUESTS, ask.user_id, ask.time_ms, request_of(ask))
        self._writer.flush(FLUSH_S)
        open_ones = {ask.request_id: ask for ask in asks}
        found: dict[int, Recommendation] = {}
        deadline_s = time.monotonic() + self._span.answer_timeout_s
        while open_ones and time.monotonic() < deadline_s and not stop.is_set():
            self._answers.poll()
            for request_id, ask in list(open_ones.items()):
                answer = self._answers.take(self._arm_of(ask.user_id), request_id)
                if answer is not None:
                    found[request_id] = answer
                    del open_ones[request_id]
        for ask in asks:
            self._react(ask, found.get(ask.request_id))

    def _react(self, ask: Ask, answer: Recommendation | None) -> None:
        if answer is None or answer.status is not Status.ANSWERED:
            self.unanswered[self._arm_of(ask.user_id)] += 1
            self._crowd.unanswered(ask)
            return
        self.latencies_ms.append(answer.latency_ms)
        items = [one.item_id for one in answer.session or answer.ranked]
        for exposed in self._crowd.react(ask, items):
            for topic, time_ms, record in records_of(exposed, answer.model_version, self._span.report_view_ms):
                heapq.heappush(self._outgoing, (time_ms, next(self._numbers), topic, record))

    def _send_before(self, end_ms: int) -> None:
        while self._outgoing and self._outgoing[0][0] < end_ms:
            time_ms, _, topic, record = heapq.heappop(self._outgoing)
            self._send(topic, record.user_id, time_ms, record)
        self._answers.forget()

    def _send(self, topic: Topic, user_id: int, time_ms: int, record: Any) -> None:
        stamped = dataclasses.replace(record, produced_ms=time.time_ns() // 1_000_000)
        self._writer.send(topic, id_key(user_id), stamped, timestamp_ms=time_ms)
        self.sent[topic.name] += 1

    def _show(self) -> None:
        """Set the gauges."""
        visits = [visit for visit in self._crowd.finished if visit.shown]
        if len(visits) > self._shown:
            self._shown = len(visits)
            metrics.SIMULATED_VISITS.set(len(visits))
            metrics.SIMULATED_WATCH.set(sum(visit.watch_ms for visit in visits) / 1000 / len(visits))
            metrics.SIMULATED_ITEMS.set(sum(len(visit.shown) for visit in visits) / len(visits))

    def _tell(self, end_ms: int) -> None:
        if time.monotonic() - self._told_s < TELL_S:
            return
        self._told_s = time.monotonic()
        share = (end_ms - self._span.begin_ms) / (self._span.end_ms - self._span.begin_ms)
        LOG.info("%3.0f %%, %d visits, %s", 100 * share, len(self._crowd.finished), dict(self.sent))


def request_of(ask: Ask) -> Request:
    """A request as a client would send it; a later one of a visit leaves out what the visit has shown."""
    return Request(
        request_id=ask.request_id,
        user_id=ask.user_id,
        time_ms=ask.time_ms,
        items=REQUESTED_ITEMS,
        exclude_items=pack_longs(ask.visit.shown),
        produced_ms=0,
    )


def records_of(exposed: Exposed, version: int, report_view_ms: int) -> Iterator[tuple[Topic, int, Any]]:
    """Topic, event time and record of all that an exposure gives rise to."""
    request_id, user_id, item, answer = exposed.request_id, exposed.user_id, exposed.item, exposed.answer
    yield (
        IMPRESSIONS,
        exposed.time_ms,
        Impression(
            request_id=request_id,
            user_id=user_id,
            item_id=item.item_id,
            position=exposed.position,
            time_ms=exposed.time_ms,
            model_version=version,
            produced_ms=0,
        ),
    )
    watch_ms = min(answer.watch_ms, report_view_ms)
    marked = ((ActionKind.LIKE, answer.like), (ActionKind.FOLLOW, answer.follow))
    kinds = [(ActionKind.VIEW, watch_ms), *((kind, watch_ms // 2) for kind, done in marked if done)]
    for kind, after_ms in kinds:
        views = kind is ActionKind.VIEW
        record = Action(
            request_id=request_id,
            user_id=user_id,
            item_id=item.item_id,
            kind=kind,
            time_ms=exposed.time_ms + after_ms,
            watch_ms=watch_ms if views else None,
            duration_ms=item.duration_ms if views else None,
            produced_ms=0,
        )
        yield ACTIONS, record.time_ms, record
