"""People who ask: as many requests as one wants, at a rate or as fast as they are answered, and what came back."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from onerec.kafka.admin import end_offsets
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.settings import Settings
from schemas.records import Request, Status
from schemas.topics import RECOMMENDATIONS, REQUESTS, id_key

FIRST_ID = 1 << 61
"""Request ids from here on are nobody else's."""
ITEMS = 5
LOOK_S = 0.005
FLUSH_S = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """One answer, and how long it took from the request's sending to the answer's writing."""

    status: Status
    latency_ms: float


class Crowd:
    """Asks and notes the answers; a context manager, one thread."""

    def __init__(self, settings: Settings, user_ids: Sequence[int], time_ms: int) -> None:
        """Users ask in turn; `time_ms` is the event time of all requests."""
        self._users, self._time_ms = user_ids, time_ms
        self._writer = RecordWriter(settings.kafka, linger_ms=0)  # nobody waits for others to ask
        start = end_offsets(settings.kafka, RECOMMENDATIONS)
        self._answers = TopicFollower(settings.kafka, RECOMMENDATIONS, self._note, start=start, service="chaos")
        self._next_id = FIRST_ID
        self.told: dict[int, Told] = {}
        self.repeated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.flush(FLUSH_S)
        self._answers.close()

    def ask(self) -> int:
        """Send one request; its id."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        request = Request(
            request_id=request_id,
            user_id=self._users[request_id % len(self._users)],
            time_ms=self._time_ms,
            items=ITEMS,
            produced_ms=time.time_ns() // 1_000_000,
        )
        self._writer.send(REQUESTS, id_key(request.user_id), request, timestamp_ms=self._time_ms)
        return request_id

    def keep_asking(self, outstanding: int, for_s: float) -> range:
        """Always have so many requests without an answer; the ids of all that were sent."""
        first, deadline_s = self._next_id, time.monotonic() + for_s
        while time.monotonic() < deadline_s:
            for _ in range(outstanding - (self._next_id - FIRST_ID - len(self.told))):
                self.ask()
            self.look(LOOK_S)
        return range(first, self._next_id)

    def flood(
        self, per_s: float, for_s: float, meanwhile: Callable[[], None], *, at_random: random.Random | None = None
    ) -> range:
        """Send so many a second whatever comes back, evenly or `at_random` times; the ids."""
        first, begun_s = self._next_id, time.monotonic()
        due_s = 0.0
        while (passed_s := time.monotonic() - begun_s) < for_s:
            while due_s <= passed_s:
                self.ask()
                due_s += 1.0 / per_s if at_random is None else at_random.expovariate(per_s)
            self.look(LOOK_S)
            meanwhile()
        return range(first, self._next_id)

    def wait(self, asked: range, timeout_s: float) -> int:
        """Until all of these have an answer or the time is over; how many have none."""
        deadline_s = time.monotonic() + timeout_s
        while (missing := sum(one not in self.told for one in asked)) and time.monotonic() < deadline_s:
            self.look(0.1)
        return missing

    def look(self, timeout_s: float) -> None:
        """Take in the answers that have come, waiting for the first at most `timeout_s`."""
        self._writer.poll()
        self._answers.poll(timeout_s)

    def statuses(self, asked: range) -> Counter[Status]:
        """How these were answered."""
        return Counter(self.told[one].status for one in asked if one in self.told)

    def late(self, asked: range, deadline_ms: float) -> int:
        """How many of these were answered with items after their deadline."""
        told = (self.told[one] for one in asked if one in self.told)
        return sum(one.status is Status.ANSWERED and one.latency_ms > deadline_ms for one in told)

    def _note(self, received: Received) -> None:
        answer = received.record
        if answer.request_id >= FIRST_ID:
            self.repeated += answer.request_id in self.told
            self.told[answer.request_id] = Told(answer.status, answer.latency_ms)
