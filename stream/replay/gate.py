"""Holds a replay back where a request has no answer yet, so that a fast replay does not outrun serving.

Without it an unthrottled replay would ask everything before the first answer, and no answer could build on what
was learned from the log before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from onerec.kafka.admin import end_offsets
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import KafkaSettings
from schemas.topics import RECOMMENDATIONS, Topic

LOG = logging.getLogger(__name__)
WAIT_S = 0.02
LOOK_EVERY = 64
"""Requests between two looks at the answers while there is room."""


class Asked(Protocol):
    """Anything that can be asked whether the replay is to end (onerec.service.Stop)."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...


class UnansweredGate:
    """Lets at most `limit` requests be without an answer, and no event before its request's answer; 0 for no gate."""

    def __init__(
        self,
        kafka: KafkaSettings,
        limit: int,
        answer_timeout_s: float,
        *,
        topics: Sequence[Topic] = (RECOMMENDATIONS,),
    ) -> None:
        """Answers from now on count, one on each of `topics`. A request is given up after `answer_timeout_s`."""
        self.limit = limit
        self.given_up = 0
        self._timeout_s = answer_timeout_s
        self._asked_s: dict[int, float] = {}
        self._missing: dict[int, set[str]] = {}
        self._until_look = LOOK_EVERY
        self._topics = frozenset(topic.name for topic in topics)
        self._answers = [
            TopicFollower(kafka, topic, self._answered, start=end_offsets(kafka, topic), service="replay")
            for topic in (topics if limit else ())
        ]

    @property
    def unanswered(self) -> int:
        """Requests that were sent and have no answer; 0 where nobody counts."""
        return len(self._asked_s)

    def pass_request(self, request_id: int, stop: Asked) -> None:
        """Return once the request may be sent, or when asked to stop."""
        if not self._answers:
            return
        self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = LOOK_EVERY
            self._look()
        while len(self._asked_s) >= self.limit and not stop.is_set():
            self._look(WAIT_S)
            self._give_up()
        self._asked_s[request_id] = time.monotonic()
        self._missing[request_id] = set(self._topics)

    def pass_event(self, request_id: int, stop: Asked) -> None:
        """Return once the request that this event follows from has its answer, or when asked to stop.

        Nobody acts on an answer before it is there; and were the event joined first, the user's history would hold
        what the answer is to predict.
        """
        if request_id not in self._asked_s:
            return
        self._look()
        while request_id in self._asked_s and not stop.is_set():
            self._look(WAIT_S)
            self._give_up()

    def close(self) -> None:
        """Stop following the answers."""
        for answers in self._answers:
            answers.close()

    def _look(self, timeout_s: float = 0.0) -> None:
        """Take in the answers that have come, waiting for them at most `timeout_s` in all."""
        for answers in self._answers:
            answers.poll(timeout_s / len(self._answers))

    def _answered(self, received: Received) -> None:
        missing = self._missing.get(received.record.request_id)
        if missing is not None:
            missing.discard(received.topic.name)
            if not missing:
                self._forget(received.record.request_id)

    def _forget(self, request_id: int) -> None:
        del self._asked_s[request_id], self._missing[request_id]

    def _give_up(self) -> None:
        """Forget the requests that nobody will answer any more; they are in the order of asking."""
        oldest_s = time.monotonic() - self._timeout_s
        for request_id, asked_s in list(self._asked_s.items()):
            if asked_s > oldest_s:
                return
            self._forget(request_id)
            self.given_up += 1
            LOG.warning("request %d has no answer after %.0f s: is a worker running?", request_id, self._timeout_s)
