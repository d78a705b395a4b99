"""A proxy to a broker that does not know yet that it leads a topic, as one that is busy while the topic is made."""

from __future__ import annotations

import asyncio
import struct
import threading
from enum import IntEnum
from types import TracebackType
from typing import Self

from confluent_kafka.admin import AdminClient

LENGTH = struct.Struct(">i")
HEAD = struct.Struct(">hhi")
"""Of a request: what it asks for, in which version, and the number under which it is answered."""


class Api(IntEnum):
    """Kafka's numbers of requests."""

    PRODUCE = 0
    LIST_OFFSETS = 2


class LateLeader:
    """The first `refused` requests of one kind that name the topic name an unknown one on their way.

    With `together` these requests are held until so many have come: all are under way before the first is refused.
    Broker and clients must be on this machine.
    """

    def __init__(self, bootstrap_servers: str, topic: str, api: Api, *, refused: int = 1, together: int = 1) -> None:
        (broker,) = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=60).brokers.values()
        self._host, self._port = str(broker.host), int(broker.port or 0)
        self._name, self._unknown = topic.encode(), b"?" * len(topic)
        self._api, self._refused, self._together = api, refused, together
        self._asked = 0
        self._held: list[bytes] = []
        self._answered_otherwise: set[int] = set()
        self._open: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.bootstrap_servers = ""

    @property
    def asked(self) -> int:
        """How many requests of the kind have named the topic."""
        return self._asked

    def __enter__(self) -> Self:
        """Listen on a port of its own."""
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop)
        self._server = started.result(60)
        self._own_port: int = self._server.sockets[0].getsockname()[1]
        self.bootstrap_servers = f"127.0.0.1:{self._own_port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        while self._open:
            await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(self._host, self._port)
        self._open += [writer, to_broker]
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._requests(reader, to_broker))
                directions.create_task(self._answers(from_broker, writer))
        except* (asyncio.IncompleteReadError, ConnectionError):  # either side hung up
            pass
        finally:
            for each in (writer, to_broker):
                each.close()
                self._open.remove(each)

    async def _requests(self, reader: asyncio.StreamReader, to_broker: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(reader)
            api, _, number = HEAD.unpack_from(frame)
            if api == self._api and self._name in frame:
                self._asked += 1
                if self._asked <= self._refused:
                    self._answered_otherwise.add(number)
                    frame = frame.replace(self._name, self._unknown)
                self._held.append(frame)
                if self._asked < self._together:
                    continue
                frames, self._held = self._held, []
            else:
                frames = [frame]
            for each in frames:
                to_broker.write(LENGTH.pack(len(each)) + each)
            await to_broker.drain()

    async def _answers(self, from_broker: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = self._host.encode() + LENGTH.pack(self._port)
        here = self._host.encode() + LENGTH.pack(self._own_port)
        while True:
            frame = (await _frame(from_broker)).replace(there, here)
            (number,) = LENGTH.unpack_from(frame)
            if number in self._answered_otherwise and self._unknown in frame:
                self._answered_otherwise.remove(number)
                frame = frame.replace(self._unknown, self._name)
            writer.write(LENGTH.pack(len(frame)) + frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(length)
