"""Hostile events through the joiner: a whole one on a bus in memory, and its process on a real broker."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from onerec.metrics import Samples
from onerec.settings import KafkaSettings
from schemas.bounds import violation
from schemas.codec import SINGLE_OBJECT_BYTES, DecodeError
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.topics import ACTIONS, DEAD_LETTERS, IMPRESSIONS, Topic
from tests.hostile import records
from tests.hostile.reading import Outcome, measured
from tests.recovery.bus import Entry
from tests.recovery.bus_clients import connect
from tests.stream.joiner import running
from tests.stream.joiner.running import Feeder, JoinerProcess
from tests.stream.joiner.system import System

ON_BUS = "the joiner, in memory"
ON_BROKER = "the joiner's process, real broker"
INPUTS = (IMPRESSIONS, ACTIONS)
AT_ONCE = frozenset({Reason.UNDECODABLE, Reason.UNKNOWN_SCHEMA, Reason.FUTURE})
"""Reasons that do not depend on what came before."""
MISLED = ("huge and negative lengths", "overlong varints", "extreme values", "bits flipped", "two records spliced")
Event = tuple[Topic, bytes, bytes | None]


def events(count: int, seed: int) -> Iterator[Event]:
    """Impressions and actions of every kind, and some that are padded to a hundred kilobytes or have such keys."""
    random = Random(seed)
    kinds = [kind for kind in records.KINDS if kind not in {*records.SHARES, "embeddings NaN, infinite, wide"}]
    made = 0
    while made < count:
        topic, value = records.KINDS[random.choice((*kinds, *MISLED))](random)
        if topic not in INPUTS:  # the bytes of another record are hostile here, too, but always for one reason
            if random.random() < 0.99:
                continue
            topic = random.choice(INPUTS)
        yield topic, _key(random), _padded(value, random)
        made += 1


def on_bus(kind: str, count: int, seed: int = 0) -> Outcome:
    """All of them in one partition of a joiner whose broker is in memory."""
    outcome = Outcome(kind, sent=count)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        system = System(Path(directory), batch=1000, events=[])
        connect(patch, system.bus)
        names = dict(zip(INPUTS, system.wiring.inputs, strict=True))
        for topic, key, value in events(count, seed):
            system.bus.log((names[topic], 0)).append(Entry(key, value, 1))
        with measured(outcome):
            system.live()
        decode = system.wiring.dead_letter_codec.decode
        letters = [decode(entry.value) for entry in system.bus.committed(system.wiring.dead_letters)]
    return _counted(outcome, letters)


def on_broker(kafka: KafkaSettings, directory: Path, count: int, seed: int = 0) -> Outcome:
    """Through `python -m stream joiner`; its memory is what it grew by after it was ready."""
    outcome = Outcome(ON_BROKER, sent=count)
    settings = {"known_items_only": False, "idle_close_s": 2.0, "feedback_window_ms": 15_000}
    with JoinerProcess(kafka, directory, **settings) as joiner:  # type: ignore[arg-type]
        joiner.until_ready()
        before_mb = joiner.peak_mb()
        started_s = time.monotonic()
        expected = _published(kafka, count, seed)
        joiner.until(lambda samples: samples.get("stream_joiner_lag_events") == 0 and _taken(samples, expected))
        outcome.seconds = time.monotonic() - started_s
        outcome.peak_mb = joiner.peak_mb() - before_mb
        if joiner.stop() != 0:
            outcome.crashes.append(joiner.output()[-200:])
    found = _counted(outcome, running.records(kafka, DEAD_LETTERS))
    for reason in AT_ONCE:
        if found.refused[reason] != expected[reason]:
            found.crashes.append(f"{reason}: {found.refused[reason]} letters, {expected[reason]} expected")
    return found


def _taken(samples: Samples, expected: Counter[str]) -> bool:
    """Whether as many were refused at once as had to be."""
    refused = sum(samples.get("onerec_dead_letters_total", reason=str(reason)) for reason in AT_ONCE)
    return bool(refused >= sum(expected[reason] for reason in AT_ONCE))


def _published(kafka: KafkaSettings, count: int, seed: int) -> Counter[str]:
    """Publish them; how many have to be refused for what."""
    feeder = Feeder(kafka)
    expected: Counter[str] = Counter()
    now_ms = time.time_ns() // 1_000_000
    for topic, key, value in events(count, seed):
        feeder.publish_raw(topic, key, value)
        try:
            broken = violation(records.CODECS[topic.name].decode(value), now_ms)
        except DecodeError as error:
            expected[error.reason] += 1
        else:
            expected[broken[0] if broken else "accepted"] += 1
    feeder.flush()
    return expected


def _counted(outcome: Outcome, letters: list[DeadLetter]) -> Outcome:
    places = {(letter.topic, letter.partition, letter.offset) for letter in letters}
    if len(places) != len(letters):
        outcome.crashes.append(f"{len(letters) - len(places)} records have two letters")
    outcome.refused = Counter(letter.reason for letter in letters)
    outcome.accepted = outcome.sent - len(letters)
    return outcome


def _key(random: Random) -> bytes:
    return random.choice((b"7", b"8", b"", b"\xff" * 9, random.randbytes(30)))


def _padded(value: bytes | None, random: Random) -> bytes | None:
    """Now and then a record whose first number takes a hundred kilobytes."""
    if value is None or len(value) < 20 or random.random() > 0.002:
        return value
    at = SINGLE_OBJECT_BYTES
    return value[:at] + bytes([value[at] | 0x80]) + b"\x80" * 100_000 + b"\x00" + value[at + 1 :]
