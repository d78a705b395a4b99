"""How fast a consumer group gets on, by the offsets that it commits."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from onerec.errors import CheckFailedError
from onerec.kafka.patience import ask

LOOK_S = 0.1
ASK_S = 30.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Events a second."""

    all: float
    """From the first commit that was seen to the last."""
    warm: float
    """Of the second half."""
    events: int


def follow(
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    bootstrap_servers: str,
    group: str,
    topics: Sequence[str],
    partitions: int,
    events: int,
    timeout_s: float,
) -> Rates:
    """Look at the group's commits until it has `events`. Raises CheckFailedError where it ends or stands before."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    parts = [TopicPartition(topic, partition) for topic in topics for partition in range(partitions)]
    seen: list[tuple[float, int]] = []
    deadline_s = time.monotonic() + timeout_s
    try:
        while not seen or seen[-1][1] < events:
            done = sum(max(0, part.offset) for part in _committed(consumer, parts))
            if done and (not seen or done > seen[-1][1]):
                seen.append((time.monotonic(), done))
            if process.poll() is not None or time.monotonic() > deadline_s:
                why = f"ended with code {process.returncode}" if process.poll() is not None else "was too slow"
                said = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise CheckFailedError(
                    f"The joiner {why} after {seen[-1:] or 0} of {events} events: {said}", f"See {log}."
                )
            time.sleep(LOOK_S)
    finally:
        consumer.close()
    return rates(seen)


def _committed(consumer: Consumer, parts: list[TopicPartition]) -> list[TopicPartition]:
    """The group's offsets; a broker that has just started does not know its coordinator yet and is asked again."""
    found: list[TopicPartition] = ask(lambda: consumer.committed(parts, timeout=ASK_S), ASK_S)
    return found


def rates(seen: Sequence[tuple[float, int]]) -> Rates:
    """From (time, events done) of each commit. Raises CheckFailedError where there are too few to tell a rate."""
    if len(seen) < 3:
        raise CheckFailedError(f"Only {len(seen)} commits were seen.", "Feed more events.")
    first, last = seen[0], seen[-1]
    half = next(one for one in seen if one[1] >= (first[1] + last[1]) / 2)
    if half == last:
        half = seen[-2]
    return Rates(_rate(first, last), _rate(half, last), last[1])


def _rate(begin: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - begin[1]) / (end[0] - begin[0])
