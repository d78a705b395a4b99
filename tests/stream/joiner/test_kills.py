"""SIGKILL, again and again in a running stream, on a broker that keeps Kafka's contract; then every record is checked.

`ONEREC_TEST_KILLS` sets how often (5 by default). The report is printed: kills, how many of them fell while output was
being written, sessions before each kill.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onerec.settings import JoinerSettings, KafkaSettings
from schemas.topics import DEAD_LETTERS, HISTORIES, SESSIONS
from tests.stream.joiner.events import Event, action, delivered, impression, view
from tests.stream.joiner.oracle import expected
from tests.stream.joiner.running import Feeder, JoinerProcess, records, until_records
from tests.stream.joiner.test_join import entries, plain

pytestmark = [pytest.mark.broker, pytest.mark.exactly_once, pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("ONEREC_TEST_KILLS", "5"))
NOW_MS = 1_650_000_000_000
CHUNK_VISITS = 3_000
RULES: dict[str, Any] = {
    "session_items": 3,
    "session_gap_ms": 40_000,
    "feedback_window_ms": 15_000,
    "history_items": 20,
    "allowed_lateness_ms": 2_000,
}
RUNNING = RULES | {"known_items_only": False, "idle_close_s": 3600.0, "transaction_ms": 40}


def visits(begin_ms: int, rng: random.Random) -> list[Event]:
    """A stretch of the stream, out of order within the lateness: full and short sessions, late actions, orphans."""
    events: list[Event] = []
    for number in range(CHUNK_VISITS):
        user, request = rng.randint(1, 200), begin_ms * 10_000 + number
        at_ms = begin_ms + number * 20
        for position in range(rng.randint(1, 2)):
            item = rng.randint(1, 500) * 2 + position
            shown_ms = at_ms + position
            if rng.random() < 0.98:
                events.append(impression(item, shown_ms, user=user, request=request, position=position))
            seen_ms = rng.randint(0, 16_000)
            events.append(view(item, shown_ms + seen_ms, seen_ms, user=user, request=request))
            if rng.random() < 0.1:
                events.append(action(item, shown_ms + seen_ms, user=user, request=request))
    return delivered(events, 1_900, rng.randint(0, 999))


def stretches(count: int) -> Iterator[list[Event]]:
    """The stream, a stretch a kill; actions reach into the next stretch, so it waits for them."""
    rng = random.Random(5)
    for number in range(count):
        yield visits(NOW_MS + number * (CHUNK_VISITS * 20 + 20_000), rng)


def finish(kafka: KafkaSettings, feeder: Feeder, joiner: JoinerProcess, sessions: int) -> None:
    """Time passes in every partition, so that everything closes; wait for it."""
    for partition in range(kafka.partitions):
        feeder.publish_to(partition, impression(1, NOW_MS + 10**9, user=10_000 + partition))
        feeder.publish_to(partition, action(2, NOW_MS + 10**9, user=10_000 + partition))
    feeder.flush()
    joiner.until(lambda samples: samples.get("stream_joiner_lag_events") == 0)
    until_records(kafka, SESSIONS, sessions, f"{sessions} sessions\n{joiner.output()}")
    assert joiner.stop() == 0


def kill_somewhere(joiner: JoinerProcess, rng: random.Random) -> bool:
    """Kill while it starts (one in four) or while it works; whether it had written output in this life."""
    worked = rng.random() >= 0.25
    if worked:
        joiner.until(lambda samples: samples.get("stream_joiner_sessions_total") > 0)
        time.sleep(rng.uniform(0.0, 0.4))
    else:
        time.sleep(rng.uniform(0.2, 1.5))  # not a wait for something: the moment of the kill is the random variable
        worked = joiner.metrics().get("stream_joiner_sessions_total") > 0
    joiner.kill()
    return worked


@pytest.mark.parametrize("kills", [0, KILLS], ids=["control", "killed"])
def test_killed_again_and_again_nothing_is_lost_and_nothing_comes_twice(
    kafka: KafkaSettings, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    feeder = Feeder(kafka)
    everything: list[Event] = []
    worked = 0
    written = []
    with JoinerProcess(kafka, tmp_path, **RUNNING) as joiner:
        for number, events in enumerate(stretches(max(kills, 3))):
            everything += events
            feeder.publish(events)
            if number < kills:
                worked += kill_somewhere(joiner, rng)
                written.append(len(records(kafka, SESSIONS)))
                if rng.random() < 0.2:
                    shutil.rmtree(joiner.directory / "state", ignore_errors=True)  # it goes on on a new machine
                joiner.start()
        wanted = expected(everything, JoinerSettings(**RULES))
        finish(kafka, feeder, joiner, len(wanted.sessions))

    print(  # noqa: T201 - the report
        f"kills {kills}, while writing {worked}, events {len(everything)}, sessions at each kill {written}"
    )
    sessions = records(kafka, SESSIONS)
    assert len(sessions) == len({session.session_id for session in sessions}) == len(wanted.sessions)
    assert {plain(session) for session in sessions} == wanted.sessions
    histories = {history.user_id: entries(history) for history in records(kafka, HISTORIES)}
    assert histories == wanted.histories
    reasons = [str(letter.reason) for letter in records(kafka, DEAD_LETTERS)]
    assert (reasons.count("late"), reasons.count("orphan"), len(reasons)) == (
        wanted.late,
        wanted.orphans,
        wanted.late + wanted.orphans,
    )
    assert worked >= kills // 2, "too few kills fell into the work to show anything"
