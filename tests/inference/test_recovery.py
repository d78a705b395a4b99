"""Workers as processes, one of them killed: every request is answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onerec.kafka import clients
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.metrics import read_metrics
from onerec.processes import free_port
from onerec.settings import KafkaSettings, Settings
from schemas.reasons import Reason
from schemas.records import Status
from schemas.topics import DEAD_LETTERS, REQUESTS, id_key
from tests.inference.loop import WAIT_S, World, eventually, running
from tests.inference.publishing import Publisher, random_weights, settings_of

pytestmark = pytest.mark.broker


@pytest.fixture
def settings(kafka: KafkaSettings, tmp_path: Path) -> Settings:
    return settings_of(kafka, tmp_path, worker={"deadline_ms": 60_000})


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    world = World(settings)
    world.items(range(60))
    Publisher(settings).publish(1, random_weights(1))
    yield world
    world.close()


@contextmanager
def worker_process(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m inference worker` with local state of its own, once it is ready."""
    port = free_port()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ONEREC_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "ONEREC_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "ONEREC_KAFKA__GROUP_PREFIX": settings.kafka.group_prefix,
        "ONEREC_STORE__URI": settings.store.uri,
        "ONEREC_STORE__STATE_DIR": str(folder),
        "ONEREC_MODEL__PRESET": "tiny",
        "ONEREC_INFERENCE__WORKER__DEADLINE_MS": "60000",
        "ONEREC_METRICS__PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "inference", "worker"], env=environment)
    try:
        eventually(lambda: 1.0 in read_metrics(port, timeout_s=WAIT_S).get("onerec_ready", {}).values())
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in {0, -signal.SIGKILL}


@pytest.mark.slow
def test_a_killed_worker_loses_no_request(settings: Settings, world: World, tmp_path: Path) -> None:
    with worker_process(settings, tmp_path / "one") as one, worker_process(settings, tmp_path / "two"):
        users = range(40)
        asked = [world.ask(user) for user in users]
        world.wait(asked)
        flood: list[int] = []
        while len(world.answers) == len(asked + flood):  # whatever stood still: it is killed while it works
            wave = [world.ask(user) for _ in range(30) for user in users]
            flood += wave
            world.wait(wave[:40])
        one.kill()
        flood += [world.ask(user) for user in users]
        world.wait(flood)
    assert {answers[0].status for answers in world.answers.values()} == {Status.ANSWERED}
    repeated = sum(len(answers) > 1 for answers in world.answers.values())
    assert repeated < len(flood) / 2, "what had been committed is not answered again"


def test_bad_requests_go_to_dead_letters_and_serving_goes_on(settings: Settings, world: World) -> None:
    producer = clients.producer(settings.kafka)
    with running(settings) as worker:
        worker.wait_ready()
        producer.produce(clients.topic_name(settings.kafka, REQUESTS), b"no avro", id_key(1))
        producer.flush(60)
        negative = world.ask(1, items=0)
        good = world.ask(1)
        assert world.answer(good).status is Status.ANSWERED
    letters: list[Received] = []
    reader = TopicFollower(settings.kafka, DEAD_LETTERS, letters.append, service="reader")
    reader.catch_up(60)
    reader.close()
    assert [letter.record.reason for letter in letters] == [Reason.UNDECODABLE, Reason.OUT_OF_BOUNDS]
    assert negative not in world.answers


def test_no_broker_is_a_sentence_and_an_exit_code(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "ONEREC_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "ONEREC_KAFKA__BROKER_PATIENCE_S": "1",
        "ONEREC_STORE__URI": str(tmp_path),
    }
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "inference", "worker"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3
    assert "No Kafka broker answers at 127.0.0.1:1" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - started < 60, "it has waited for something else than kafka.broker_patience_s"
