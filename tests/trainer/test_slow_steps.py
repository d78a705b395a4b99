"""Steps that take longer than any consumer may stay away from its broker: the trainer process learns on, once each."""

from __future__ import annotations

from pathlib import Path

import pytest

from onerec.kafka import admin
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind
from schemas.topics import SESSIONS
from tests.trainer import toy
from tests.trainer.world import World

pytestmark = [pytest.mark.broker, pytest.mark.slow]

IMPATIENT = {"session.timeout.ms": "500", "heartbeat.interval.ms": "100", "max.poll.interval.ms": "500"}
SLOW = """
import time
from trainer import loop
quick = loop.apply_step
def apply_step(*arguments):
    time.sleep(2.0)
    return quick(*arguments)
loop.apply_step = apply_step
"""
"""Each step takes four times as long as a consumer may stay away."""
WAVES, PER_WAVE = 4, 10


def test_no_step_is_so_long_that_a_session_is_lost_or_comes_twice(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(kafka.model_copy(update={"librdkafka": IMPATIENT}), tmp_path)
    world.publish_catalogue()
    world.publish_histories()
    with world.running(before=SLOW) as process:
        for wave in range(1, 1 + WAVES):  # while a step of the wave before may be under way
            first = (wave - 1) * PER_WAVE
            world.publish_sessions([toy.session(first + n, [n, n + 20], labels=n % 3) for n in range(PER_WAVE)])
            world.wait_for_sessions(wave * PER_WAVE // 2, process)
        world.wait_for_sessions(WAVES * PER_WAVE, process)
    steps = [entry for entry in world.journal() if entry.kind is JournalKind.STEP and learned(entry)]
    assert len(steps) > 1
    assert sum(learned(entry) for entry in steps) == WAVES * PER_WAVE
    by_partition: dict[int, int] = dict.fromkeys(admin.beginning_offsets(kafka, SESSIONS), 0)
    for entry in steps:
        for taken in entry.ranges:
            if taken.topic == SESSIONS.name:
                assert taken.first_offset == by_partition[taken.partition], "neither a gap nor an overlap"
                by_partition[taken.partition] = taken.next_offset
    assert by_partition == admin.end_offsets(kafka, SESSIONS)
    assert "max.poll" not in world.log()


def learned(entry: JournalEntry) -> int:
    """How many sessions a step was learned from."""
    return sum(taken.applied for taken in entry.ranges if taken.topic == SESSIONS.name)
