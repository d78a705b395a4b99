"""A Faust service on a real broker: bad records, failing handlers, kills, a broker that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onerec.kafka import admin
from onerec.kafka.embedded import EmbeddedBroker
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import DeadLetter, Impression, Request
from schemas.topics import DEAD_LETTERS, IMPRESSIONS, REQUESTS, id_key
from tests.faust.echo_service import ENDS, FAILS, HANGS

pytestmark = pytest.mark.broker


@contextmanager
def echo(kafka: KafkaSettings, out: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    own = kafka.model_dump(include=kafka.model_fields_set)
    environment = os.environ | {
        **{f"ONEREC_KAFKA__{name.upper()}": str(value) for name, value in own.items()},
        "ONEREC_STORE__STATE_DIR": str(out.parent / "state"),
        "OMP_NUM_THREADS": "1",
    }
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faust.echo_service", str(out)], env=environment, stderr=stderr
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


OTHER_USER = 2
"""A user whose records lie in another of two partitions than those of user 1."""


def send(kafka: KafkaSettings, *numbers: int, user_id: int = 1) -> None:
    writer = RecordWriter(kafka)
    for number in numbers:
        request = Request(request_id=number, user_id=user_id, time_ms=1, produced_ms=1)
        writer.send(REQUESTS, id_key(user_id), request)
    writer.flush(60)


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def lines(out: Path) -> list[str]:
    return out.read_text().split("\n")[:-1] if out.exists() else []


def batched(out: Path) -> list[str]:
    """Request ids of the impressions that were handled."""
    return sorted(word for line in lines(out) if line.startswith("batch") for word in line.split()[1:])


def letters(kafka: KafkaSettings) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    follower = TopicFollower(kafka, DEAD_LETTERS, lambda received: found.append(received.record), service="test")
    follower.catch_up(60)
    follower.close()
    return found


@pytest.mark.slow
def test_refuses_bad_records_and_goes_on_and_repeats_after_a_kill(kafka: KafkaSettings, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    writer = RecordWriter(kafka)
    writer.producer.produce(kafka.topic_prefix + REQUESTS.name, b"\xc3\x01rubbish", b"1")
    for number in (FAILS, 1, 2):
        impression = Impression(request_id=number, user_id=1, item_id=1, position=0, time_ms=1, produced_ms=1)
        writer.send(IMPRESSIONS, id_key(1), impression)
    writer.flush(60)
    send(kafka, 1, FAILS, 2, HANGS)
    with echo(kafka, out, log) as process:
        until(lambda: {"1", "2"} <= set(lines(out)) and len(letters(kafka)) >= 3, log)
        until(lambda: batched(out) == ["1", "2"], log)
        refused = {(letter.topic, letter.reason) for letter in letters(kafka)}
        assert ("requests", "processing_failed") in refused
        assert ("impressions", "processing_failed") in refused
        assert {reason for topic, reason in refused if topic == "requests"} - {"processing_failed"}
        until(lambda: 4 in admin.committed(kafka, "echo", REQUESTS).values(), log)
        send(kafka, 3)
        until(lambda: "3" in lines(out), log)
        send(kafka, 4, user_id=OTHER_USER)  # once it is committed, what is done in the other partition is too
        until(lambda: 1 in admin.committed(kafka, "echo", REQUESTS).values(), log)
        assert 4 in admin.committed(kafka, "echo", REQUESTS).values()
        process.kill()  # 3 has been handled, but the hanging record before it has not: both come again
        process.wait()
    out.unlink()
    with echo(kafka, out, log) as process:
        until(lambda: "3" in lines(out), log)
        assert "1" not in lines(out)
        send(kafka, ENDS)
        assert process.wait(120) == 4
    assert "The check failed. Mend it." in log.read_text()


def test_a_signal_ends_it_with_code_0(kafka: KafkaSettings, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    send(kafka, 1)
    with echo(kafka, out, log) as process:
        until(lambda: lines(out) == ["1"], log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


@pytest.mark.slow
def test_a_broker_that_goes_away_ends_it_with_a_sentence(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with EmbeddedBroker(tmp_path / "broker") as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=1, broker_patience_s=4.0)
        admin.create_topics(kafka)
        send(kafka, 1)
        with echo(kafka, out, log) as process:
            until(lambda: lines(out) == ["1"], log)
            os.kill(broker.pid, signal.SIGKILL)
            assert process.wait(120) == 3
    assert "No Kafka broker answers" in log.read_text()
