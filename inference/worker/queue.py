"""Requests that wait for their batch, and which of them can no longer be answered in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.records import Request

SMOOTHING = 0.2
SPREADS = 2.0
"""What a batch takes varies: so many mean deviations are kept free, or half of the batches would end too late."""
FOLLOWS_MS = 5.0
"""What is read within so much of a batch's end was there before it: nothing is read while a batch runs."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request with where it stood in the log. Times are of the monotonic clock in ms."""

    request: Request
    partition: int
    offset: int
    arrived_ms: float
    """When it could have been read: during the batch before, where that alone kept it waiting."""
    age_ms: float
    """When it arrived, by its client's clock."""
    deadline_ms: float


class RequestQueue:
    """First come, first served; what cannot be answered within its deadline leaves at once.

    So under overload those that are answered are answered in time, and the queue does not grow beyond what is served
    within a deadline; what it may hold besides, of requests that wait for a model or have hours, is `Room`'s to say.

    `now_ms` is the monotonic clock: a request waits as long as it waits, whatever is done to the wall clock meanwhile.
    """

    def __init__(self, max_batch: int, deadline_ms: int, max_wait_ms: float) -> None:
        self._max_batch, self._deadline_ms, self._max_wait_ms = max_batch, deadline_ms, max_wait_ms
        self._waiting: deque[Waiting] = deque()
        self._batch_ms = 0.0  # what a batch takes, smoothed; 0 before the first
        self._spread_ms = 0.0  # how far batches are from that, smoothed
        self._began_ms = self._ended_ms = float("-inf")  # the last batch
        self.size_bytes = 0
        """What the waiting requests carry."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Request, partition: int, offset: int, *, now_ms: float, age_ms: float) -> None:
        """Take a request of that age, just read.

        A client whose clock is ahead (a negative age) is taken to have sent it now. For as long as the batch before
        kept it from being read it has waited for others to join it, and does not wait for them again.
        """
        age_ms = max(0.0, age_ms)
        deadline_ms = now_ms - age_ms + (request.deadline_ms or self._deadline_ms)
        kept_ms = self._kept_waiting_ms(now_ms, age_ms)
        self._waiting.append(Waiting(request, partition, offset, now_ms - kept_ms, age_ms - kept_ms, deadline_ms))
        self.size_bytes += len(request.exclude_items)

    def _kept_waiting_ms(self, now_ms: float, age_ms: float) -> float:
        """For how much of its age the last batch kept a request from being read."""
        if now_ms - self._ended_ms > FOLLOWS_MS:
            return 0.0
        return max(0.0, self._ended_ms - max(self._began_ms, now_ms - age_ms))

    def served(self, began_ms: float, ended_ms: float) -> None:
        """Note when a batch ran."""
        self._began_ms, self._ended_ms = began_ms, ended_ms
        took_ms = ended_ms - began_ms
        apart_ms = took_ms - self._batch_ms
        if self._batch_ms:
            self._spread_ms += (abs(apart_ms) - self._spread_ms) * SMOOTHING
        self._batch_ms += apart_ms * (SMOOTHING if self._batch_ms else 1.0)

    def oldest_age_ms(self, now_ms: float) -> float:
        """Age of the oldest request, counted from its client's sending it; 0 where none waits."""
        return max((now_ms - waiting.arrived_ms + waiting.age_ms for waiting in self._waiting), default=0.0)

    def shed(self, now_ms: float) -> list[tuple[Waiting, str]]:
        """Take out what cannot be answered in time, each with why.

        That is what is past its deadline, and what stands behind more batches than fit into its time. The first
        batch always stays, so that the estimate of what a batch takes is renewed however bad it was.
        """
        kept: deque[Waiting] = deque()
        late: list[tuple[Waiting, str]] = []
        for waiting in self._waiting:
            ahead = len(kept) // self._max_batch
            if now_ms >= waiting.deadline_ms:
                late.append((waiting, _late(waiting)))
            elif ahead and now_ms + self._takes_ms(ahead + 1) > waiting.deadline_ms:
                late.append((waiting, f"{len(kept)} requests are ahead of it, more than its deadline allows"))
            else:
                kept.append(waiting)
        self._keep(kept)
        return late

    def wait_ms(self, now_ms: float) -> float | None:
        """How long until a batch is due: 0 for now, None where nothing waits."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._max_batch:
            return 0.0
        return max(0.0, self._waiting[0].arrived_ms + self._max_wait_ms - now_ms)

    def take(self, partitions: Collection[int]) -> list[Waiting]:
        """The next batch: requests of these partitions, in order."""
        batch: list[Waiting] = []
        rest: deque[Waiting] = deque()
        for waiting in self._waiting:
            if len(batch) < self._max_batch and waiting.partition in partitions:
                batch.append(waiting)
            else:
                rest.append(waiting)
        self._keep(rest)
        return batch

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop the requests of partitions that went to another worker, which reads them again."""
        gone = set(partitions)
        self._keep(deque(waiting for waiting in self._waiting if waiting.partition not in gone))

    def _takes_ms(self, batches: int) -> float:
        return batches * self._batch_ms + SPREADS * self._spread_ms

    def _keep(self, waiting: deque[Waiting]) -> None:
        if len(waiting) != len(self._waiting):
            self.size_bytes = sum(len(one.request.exclude_items) for one in waiting)
        self._waiting = waiting


def _late(waiting: Waiting) -> str:
    """Why a request is past its deadline: it came so, or its turn did not come."""
    if waiting.deadline_ms > waiting.arrived_ms:
        return "its turn did not come before its deadline"
    return f"it was {waiting.age_ms / 1000:.1f} s old when it was read, if the clocks of client and worker agree"
