"""Holds a replay back where a request has no answer yet, so that a fast replay does not outrun serving.

Without it an unthrottled replay would ask everything before the first answer, and no answer could build on what
was learned from the log before it.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from onerec.kafka.admin import end_offsets
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import KafkaSettings
from schemas.topics import RECOMMENDATIONS

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

    def __init__(self, kafka: KafkaSettings, limit: int, answer_timeout_s: float) -> None:
        """Answers from now on count. A request is given up after `answer_timeout_s`."""
        self.limit = limit
        self.given_up = 0
        self._timeout_s = answer_timeout_s
        self._asked_s: dict[int, float] = {}
        self._until_look = LOOK_EVERY
        self._answers: TopicFollower | None = None
        if limit:
            start = end_offsets(kafka, RECOMMENDATIONS)
            self._answers = TopicFollower(kafka, RECOMMENDATIONS, self._answered, start=start, service="replay")

    @property
    def unanswered(self) -> int:
        """Requests that were sent and have no answer; 0 where nobody counts."""
        return len(self._asked_s)

    def pass_request(self, request_id: int, stop: Asked) -> None:
        """Return once the request may be sent, or when asked to stop."""
        if self._answers is None:
            return
        self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = LOOK_EVERY
            self._answers.poll(0.0)
        while len(self._asked_s) >= self.limit and not stop.is_set():
            self._answers.poll(WAIT_S)
            self._give_up()
        self._asked_s[request_id] = time.monotonic()

    def pass_event(self, request_id: int, stop: Asked) -> None:
        """Return once the request that this event follows from has its answer, or when asked to stop.

        Nobody acts on an answer before it is there; and were the event joined first, the user's history would hold
        what the answer is to predict.
        """
        if self._answers is None or request_id not in self._asked_s:
            return
        self._answers.poll(0.0)
        while request_id in self._asked_s and not stop.is_set():
            self._answers.poll(WAIT_S)
            self._give_up()

    def close(self) -> None:
        """Stop following the answers."""
        if self._answers is not None:
            self._answers.close()

    def _answered(self, received: Received) -> None:
        self._asked_s.pop(received.record.request_id, None)

    def _give_up(self) -> None:
        """Forget the requests that nobody will answer any more; they are in the order of asking."""
        oldest_s = time.monotonic() - self._timeout_s
        for request_id, asked_s in list(self._asked_s.items()):
            if asked_s > oldest_s:
                return
            del self._asked_s[request_id]
            self.given_up += 1
            LOG.warning("request %d has no answer after %.0f s: is a worker running?", request_id, self._timeout_s)
