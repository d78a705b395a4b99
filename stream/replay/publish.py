"""Sends a log: the catalogue, the histories, then its events in order at the wanted speed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from onerec.followers import Followers
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from schemas.topics import id_key
from stream.replay.gate import UnansweredGate
from stream.replay.messages import Message, Row, event
from stream.replay.progress import event_time, progress
from stream.replay.schedule import Kind

FLUSH_S = 120.0
REPORT_EVERY = 256
AHEAD_S = 0.005
"""Shorter waits are not worth a system call: the next record comes that much early."""


@dataclass(slots=True)
class Sent:
    """What has been sent."""

    records: Counter[str] = field(default_factory=Counter)
    exposures: int = 0
    first_ms: int | None = None
    last_ms: int | None = None


class Pace:
    """Turns event time into wall time: `speed` times as fast as the log was; 0 for no waiting at all."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._zero: tuple[float, int] | None = None

    def wait(self, due_ms: int, stop: Stop) -> None:
        """Return at the wall time of event time `due_ms`, counted from the first call, or when asked to stop."""
        if not self._speed:
            return
        now_s = time.monotonic()
        if self._zero is None:
            self._zero = now_s, due_ms
        begun_s, begun_ms = self._zero
        ahead_s = begun_s + (due_ms - begun_ms) / 1000 / self._speed - now_s
        if ahead_s > AHEAD_S:
            stop.wait(ahead_s)


class Holds(NamedTuple):
    """What holds events back."""

    gate: UnansweredGate
    pace: Pace
    followers: Followers


def send_all(
    writer: RecordWriter, messages: Iterable[Message], what: str, total: int, *, sent: Sent, stop: Stop
) -> None:
    """Send records in any order and wait until the broker has them."""
    with progress(what, total) as report:
        for count, (topic, key, timestamp_ms, record) in enumerate(messages, start=1):
            writer.send(topic, key, record, timestamp_ms=timestamp_ms)
            sent.records[topic.name] += 1
            if not count % REPORT_EVERY or count == total:
                report(count, "")
                if stop.is_set():
                    break
        writer.flush(FLUSH_S)


def send_events(
    writer: RecordWriter,
    rows: Iterable[tuple[int, int, Row]],
    total: int,
    *,
    holds: Holds,
    sent: Sent,
    stop: Stop,
) -> None:
    """Send requests, impressions and actions in the order given and wait until the broker has them."""
    with progress("events", total) as report:
        for count, (due_ms, kind, row) in enumerate(rows, start=1):
            holds.followers.keep_up()
            holds.pace.wait(due_ms, stop)
            if kind == Kind.REQUEST:
                holds.gate.pass_request(row[0], stop)
            else:
                holds.gate.pass_event(row[0], stop)
            if stop.is_set():
                break
            topic, record = event(kind, row, time.time_ns() // 1_000_000)
            writer.send(topic, id_key(row[1]), record, timestamp_ms=row[3])
            sent.records[topic.name] += 1
            sent.exposures += kind == Kind.IMPRESSION
            if not count % REPORT_EVERY or count == total:
                report(count, _note(row[3], holds.gate))
            sent.first_ms, sent.last_ms = sent.first_ms or row[3], row[3]
        writer.flush(FLUSH_S)


def _note(time_ms: int, gate: UnansweredGate) -> str:
    waiting = f", {gate.unanswered} unanswered" if gate.limit else ""
    return f"{event_time(time_ms)}{waiting}"
