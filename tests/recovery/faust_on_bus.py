"""Faust services on a bus in memory: their own agents and handlers, and Faust's own account of what may be committed.

What is not Faust's here is its loop: records are read, handlers run, blocking work is done and offsets are committed in
one thread and in an order that repeats. Offsets are committed as often as anything happens, so that a crash falls
between any two things.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from faust.transport.consumer import Consumer
from faust.types.tuples import TP, Message

from onerec.errors import OneRecError
from onerec.faust_service import FaustHost
from onerec.kafka import clients
from onerec.settings import Settings
from schemas.topics import Topic
from tests.recovery.bus import Bus, Entry

P = ParamSpec("P")
T = TypeVar("T")
HOPS = 10
"""Rounds of the event loop after which nothing goes on that does not wait for a record or for work."""


class Account:
    """What has been acknowledged and may be committed, by Faust's rules."""

    ack: Any = Consumer.ack
    _new_offset: Any = Consumer._new_offset
    _should_commit: Any = Consumer._should_commit
    _filter_committable_offsets: Any = Consumer._filter_committable_offsets
    _waiting_for_ack = None
    _n_acked = 0

    def __init__(self) -> None:
        self.app = SimpleNamespace(topics=SimpleNamespace(acks_enabled_for=lambda _topic: True))
        self._gap: defaultdict[TP, list[None]] = defaultdict(list)  # no topic that is read here has markers
        self._acked: defaultdict[TP, list[int]] = defaultdict(list)
        self._acked_index: defaultdict[TP, set[int]] = defaultdict(set)
        self._committed_offset: defaultdict[TP, int | None] = defaultdict(lambda: None)
        self._unacked_messages: WeakSet[Message] = WeakSet()

    def begin(self, tp: TP, offset: int | None) -> None:
        """Go on behind what is committed."""
        self._committed_offset[tp] = offset

    def committable(self) -> dict[TP, int]:
        """What Faust would commit now, as if it did."""
        found: dict[TP, int] = self._filter_committable_offsets(list(self._acked))
        self._committed_offset.update(found)
        return found


class Event:
    """What a stream hands to an agent."""

    def __init__(self, account: Account, message: Message) -> None:
        self._account, self.message = account, message

    def ack(self) -> None:
        self._account.ack(self.message)


class Stream:
    """The stream of an agent."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue()

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.queue.get()

    async def noack_take(self, most: int, within: float) -> AsyncIterator[list[Event]]:
        while True:
            events = [await self.queue.get()]
            while len(events) < most and not self.queue.empty():
                events.append(self.queue.get_nowait())
            yield events


class BusHost(FaustHost):
    """The host of one agent; its work thread is the thread that drives it."""

    def __init__(self, name: str, settings: Settings, stop: Any, bus: Bus) -> None:
        super().__init__(name, settings, stop)
        self._bus, self._account, self._stream = bus, Account(), Stream()
        self._work: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._topic = ""
        self._body: Callable[[Any], Awaitable[None]] | None = None
        self._read_to: dict[TP, int] = {}
        self._assigned: list[Callable[[], Awaitable[None]]] = []
        signal = SimpleNamespace(connect=lambda told, **_: self._assigned.append(told))
        self.app = SimpleNamespace(task=lambda _: None, on_partitions_assigned=signal)  # type: ignore[assignment]

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: asyncio.Future[T] = self.loop.create_future()
        self._work.append((done, functools.partial(work, *args, **kwargs)))
        return await done

    def fail(self, error: OneRecError) -> None:
        raise AssertionError(f"the service ended: {error}")

    def live(self, start: Callable[[], None], done: Callable[[], bool]) -> None:
        """Start the service, then run it until it is `done` and has committed all that it has read."""
        try:
            with self.resources:
                start()
                self.loop.run_until_complete(self._drive(done))
        finally:
            self.loop.close()
            asyncio.set_event_loop(None)

    def _start_agent(self, topic: Topic, body: Callable[[Any], Awaitable[None]]) -> None:
        self._topic, self._body = clients.topic_name(self.kafka, topic), body

    async def _drive(self, done: Callable[[], bool]) -> None:
        assert self._body is not None
        for part in sorted(part for part in self._bus.logs if part[0] == self._topic):
            self._account.begin(TP(*part), self._bus.offsets.get(part))
            self._read_to[TP(*part)] = self._bus.offsets.get(part, 0)
        agent = asyncio.ensure_future(self._body(self._stream))
        try:
            for told in self._assigned:
                await told()
            self.ready()
            while self._work or not (done() and self._all_is_committed()):
                self._read()
                await self._advance(agent)
                self._work_once()
                await self._advance(agent)
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self.loop.shutdown_asyncgens()

    def _work_once(self) -> None:
        """What the work thread has to do next."""
        if not self._work:
            return
        future, work = self._work.popleft()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    def _all_is_committed(self) -> bool:
        return all(self._bus.offsets.get(tp, 0) == len(self._bus.log(tp)) for tp in self._read_to)

    def _read(self) -> None:
        """The next records of each partition."""
        for tp, at in self._read_to.items():
            for offset, entry in list(enumerate(self._bus.log(tp)))[at : at + self._bus.batch]:
                self._bus.step("read")
                self._stream.queue.put_nowait(Event(self._account, _message(tp, offset, entry)))
                self._read_to[tp] = offset + 1

    async def _advance(self, agent: asyncio.Future[None]) -> None:
        """Let everything go on as far as it can, and commit what is done."""
        for _ in range(HOPS):
            await asyncio.sleep(0)
        if agent.done():
            agent.result()
        committable = self._account.committable()
        if committable:
            self._bus.step("commit offsets")
            self._bus.offsets.update({(tp.topic, tp.partition): offset for tp, offset in committable.items()})


def _message(tp: TP, offset: int, entry: Entry) -> Message:
    time_s = entry.time_ms / 1000
    return Message(tp.topic, tp.partition, offset, time_s, 1, None, entry.key, entry.value, checksum=None, tp=tp)
