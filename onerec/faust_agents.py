"""Faust agents that lose nothing: records decoded, handled, refused or left uncommitted, one by one or in batches.

Faust acknowledges an event when an agent asks for the next; here it is acknowledged once its handler has ended
or the record lies in dead-letters. An OneRecError of a handler ends the service, and the record stays
uncommitted, so that it is handled again after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import Counter

from onerec.clock import held_against
from onerec.errors import OneRecError
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.settings import KafkaSettings
from schemas.bounds import Limits, violation
from schemas.codec import DecodeError
from schemas.reasons import Reason
from schemas.topics import Topic

LOG = logging.getLogger(__name__)
FAILURES = Counter("onerec_agent_failures_total", "Records on which a Faust agent failed.", ["service"])
Handle = Callable[[Received], Awaitable[None]]
HandleBatch = Callable[[Sequence[Received]], Awaitable[None]]
Agent = Callable[[Any], Awaitable[None]]


MAX_UNACKNOWLEDGED = 20_000
"""Events of one topic that may have been taken and not acknowledged: from there on further ones stay with the broker.
A single slow record would else keep all that came after it in memory."""


class Host(Protocol):
    """What agents need of their service."""

    name: str
    kafka: KafkaSettings
    refused: DeadLetters

    def fail(self, error: OneRecError) -> None:
        """End the service."""


@dataclass(slots=True, eq=False)
class _Taken:
    """An event between its arrival and its acknowledgement, with the queue of its partition."""

    event: Any
    queue: deque[_Taken]

    settled: Callable[[], None]
    """Called once that has been done."""
    done: bool = False

    def settle(self) -> None:
        """The event is done; acknowledge it and those after it once all before it are done too."""
        self.done = True
        while self.queue and self.queue[0].done:
            self.queue.popleft().event.ack()
        self.settled()


class _InOrder:
    """Acknowledges the events of a partition in the order of their offsets, whatever order they end in.

    Faust takes any order, but commits over a gap of one record: with offset 4 committed and only 5 acknowledged
    it commits 6, and a crash loses record 4 (`Consumer._new_offset` cannot tell it from a transaction's marker).
    """

    def __init__(self) -> None:
        self._queues: dict[int, deque[_Taken]] = {}
        self._room = asyncio.Event()

    def unacknowledged(self) -> int:
        """How many events have been taken and not acknowledged."""
        return sum(len(queue) for queue in self._queues.values())

    async def room(self) -> None:
        """Return once there are fewer than MAX_UNACKNOWLEDGED."""
        while self.unacknowledged() >= MAX_UNACKNOWLEDGED:
            self._room.clear()
            await self._room.wait()

    def take(self, event: Any) -> _Taken:
        """Note an event as it arrives."""
        partition, offset = _place(event)
        queue = self._queues.get(partition)
        if queue is None or (queue and offset <= queue[-1].event.message.offset):  # new here, or taken away and back
            queue = self._queues[partition] = deque()
        taken = _Taken(event, queue, self._room.set)
        queue.append(taken)
        return taken


class _Decoding:
    """Events of one topic to records; what cannot be one goes to dead-letters."""

    def __init__(self, host: Host, topic: Topic) -> None:
        self._host = host
        self._topic = topic
        self._codec = codec(host.kafka, topic)
        self._limits = Limits()
        self._order = _InOrder()

    def unacknowledged(self) -> int:
        """How many events have been taken and not acknowledged: at most MAX_UNACKNOWLEDGED."""
        return self._order.unacknowledged()

    def _decoded(self, event: Any) -> Received | None:
        message = event.message
        try:
            record = self._codec.decode(message.value)
        except DecodeError as error:
            self._refuse(event, error.reason, error.detail)
            return None
        broken = violation(record, held_against(self._topic), self._limits)
        if broken is not None:
            self._refuse(event, *broken)
            return None
        return Received(self._topic, message.partition, message.offset, _time_ms(message), message.key, record)

    async def _settled(self, handle: Callable[[], Awaitable[None]], event: Any) -> bool:
        """Run the handler of one event; whether the event may be acknowledged."""
        try:
            await handle()
        except OneRecError as error:
            self._host.fail(error)
            return False
        except Exception as error:
            LOG.exception("%s failed on %s[%d]@%d", self._host.name, self._topic.name, *_place(event))
            FAILURES.labels(self._host.name).inc()
            self._refuse(event, Reason.PROCESSING_FAILED, repr(error))
        return True

    def _refuse(self, event: Any, reason: Reason, detail: str) -> None:
        message = event.message
        self._host.refused.refuse(
            topic=self._topic.name,
            partition=message.partition,
            offset=message.offset,
            timestamp_ms=_time_ms(message),
            key=message.key,
            value=message.value,
            reason=reason,
            detail=detail,
        )
        self._host.refused.flush()  # the letter is on the broker before the record counts as done


class Records(_Decoding):
    """One record a call, up to `at_once` calls at the same time."""

    def __init__(self, host: Host, topic: Topic, at_once: int) -> None:
        super().__init__(host, topic)
        self._slots = asyncio.Semaphore(at_once)
        self._running: set[asyncio.Task[None]] = set()

    def agent(self, handle: Handle) -> Agent:
        """The body of the agent."""

        async def body(stream: Any) -> None:
            async for event in stream.noack().events():
                await self._order.room()
                taken = self._order.take(event)
                received = self._decoded(event)
                if received is None:
                    taken.settle()
                    continue
                await self._slots.acquire()
                task = asyncio.create_task(self._one(handle, taken, received))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

        return body

    async def _one(self, handle: Handle, taken: _Taken, received: Received) -> None:
        try:
            if await self._settled(lambda: handle(received), taken.event):
                taken.settle()
        finally:
            self._slots.release()


class Batches(_Decoding):
    """Several records a call."""

    def __init__(self, host: Host, topic: Topic, max_batch: int, within_s: float) -> None:
        super().__init__(host, topic)
        self._max_batch = max_batch
        self._within_s = within_s

    def agent(self, handle: HandleBatch) -> Agent:
        """The body of the agent."""

        async def body(stream: Any) -> None:
            async for events in stream.noack_take(self._max_batch, within=self._within_s):
                pairs: list[tuple[_Taken, Received]] = []
                for event in events:
                    taken = self._order.take(event)
                    received = self._decoded(event)
                    if received is None:
                        taken.settle()
                    else:
                        pairs.append((taken, received))
                await self._batch(handle, pairs)

        return body

    async def _batch(self, handle: HandleBatch, pairs: list[tuple[_Taken, Received]]) -> None:
        if not pairs:
            return
        try:
            await handle([received for _, received in pairs])
        except OneRecError as error:
            self._host.fail(error)
        except Exception:
            LOG.exception("%s failed on a batch of %d; trying one by one", self._host.name, len(pairs))
            for taken, received in pairs:
                if await self._settled(lambda one=received: handle([one]), taken.event):  # type: ignore[misc]
                    taken.settle()
        else:
            for taken, _ in pairs:
                taken.settle()


def _time_ms(message: Any) -> int:
    return round((message.timestamp or 0.0) * 1000)


def _place(event: Any) -> tuple[int, int]:
    return event.message.partition, event.message.offset
