"""Feeds a system with the log while faults happen to it, at an even pace, and closes what is open at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from chaos.log_slice import LogSlice
from onerec.kafka.writer import RecordWriter
from onerec.settings import Settings
from schemas.records import Action, ActionKind, Impression
from schemas.topics import ACTIONS, IMPRESSIONS, id_key
from stream.replay.messages import event

FLUSH_S = 120.0
TICK_S = 0.05
CLOSER = 1 << 40
"""User ids from here on belong to nobody in the log."""
LATER_MS = 86_400_000


class Feed(threading.Thread):
    """Sends from `with` to its end, in pieces of a twentieth of a second; at the end time passes for everybody.

    A record that comes a day later in each partition lets the watermarks pass everything before it, so that all
    windows and sessions close by event time: what must come out is a function of what went in, not of pauses.
    """

    def __init__(self, settings: Settings, log: LogSlice, per_s: float) -> None:
        """`per_s` is how many records go out in a second."""
        super().__init__(name="feed")
        self.sent: Counter[str] = Counter()
        self._settings = settings
        self._log = log
        self._per_s = per_s
        self._enough = threading.Event()
        self._failure: BaseException | None = None
        self._last_ms = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self.join()
        if self._failure is not None and error is None:
            raise self._failure

    def run(self) -> None:
        """The thread: send until it is enough or the log ends."""
        writer = RecordWriter(self._settings.kafka)
        try:
            self._send_log(writer)
            self._send_closers(writer)
            writer.flush(FLUSH_S)
        except BaseException as error:  # raised again by whoever waits for us
            self._failure = error

    def _send_log(self, writer: RecordWriter) -> None:
        begun_s = time.monotonic()
        for count, (kind, row) in enumerate(self._log.rows(self._settings)):
            if count >= (time.monotonic() - begun_s) * self._per_s:
                writer.poll()
                if self._enough.wait(TICK_S):
                    return
            if self._enough.is_set():
                return
            topic, record = event(kind, row, _now_ms())
            writer.send(topic, id_key(row[1]), record, timestamp_ms=row[3])
            self._last_ms = max(self._last_ms, row[3])
            self.sent[topic.name] += 1

    def _send_closers(self, writer: RecordWriter) -> None:
        item_id, time_ms = int(self._log.items.item_ids[0]), self._last_ms + LATER_MS
        for partition in range(self._settings.kafka.partitions):
            user_id = CLOSER + partition
            shown = Impression(
                request_id=user_id,
                user_id=user_id,
                item_id=item_id,
                position=0,
                time_ms=time_ms,
                produced_ms=_now_ms(),
            )
            done = Action(
                request_id=user_id,
                user_id=user_id,
                item_id=item_id,
                kind=ActionKind.LIKE,
                time_ms=time_ms,
                watch_ms=None,
                duration_ms=None,
                produced_ms=_now_ms(),
            )
            for topic, record in ((IMPRESSIONS, shown), (ACTIONS, done)):
                writer.send(topic, id_key(user_id), record, timestamp_ms=time_ms, partition=partition)
                self.sent[topic.name] += 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
