"""Apache Kafka is frozen in the middle of the joiner's commit, for longer than a commit may take, and goes on.

The request to commit waits in the broker's socket: it is carried out after the joiner has given it up. Whether it was,
the joiner learns from a new producer and the broker's offsets alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException, Producer

from chaos.kafka_process import KafkaProcess, kafka_home
from onerec.errors import DependencyMissingError
from onerec.kafka import admin, clients
from onerec.service import Stop
from onerec.settings import KafkaSettings, load_settings
from schemas.topics import SESSIONS
from stream.joiner import transaction
from stream.joiner.service import run_joiner
from tests.stream.joiner.events import action, impression
from tests.stream.joiner.oracle import expected
from tests.stream.joiner.running import Feeder, eventually, records
from tests.stream.joiner.test_service import NOW_MS, QUICK, check_against_oracle, some_events

COMMIT_TIMEOUT_S = 3.0
JOINER = QUICK | {"idle_close_s": 3600.0}
PORTIONS = 3
"""Of the events; one commit after each is published fails."""


@pytest.fixture
def broker_process(tmp_path: Path) -> Iterator[KafkaProcess]:
    """A broker of the test's own: nobody else may be stopped with it."""
    try:
        home = kafka_home()
    except DependencyMissingError as error:
        pytest.skip(f"no Apache Kafka as a process here: {error.problem}")
    with KafkaProcess(home, tmp_path / "kafka") as running:
        yield running


class Freezer:
    """Stops the broker's process before the next commit whenever it is told to, and lets it go on once that failed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.next = False
        self.unanswered = 0

    def commit(self, producer: Producer, timeout_s: float) -> None:
        """In place of the producer's own."""
        if not self.next:
            Producer.commit_transaction(producer, timeout_s)
            return
        self.next = False
        os.kill(self._pid, signal.SIGSTOP)
        try:
            eventually(self._is_frozen, "the broker stands still")
            Producer.commit_transaction(producer, timeout_s)
            raise AssertionError("a broker that stands still has committed")
        except KafkaException:
            self.unanswered += 1
            raise
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def _is_frozen(self) -> bool:
        """The signal stops one thread after the other: until the last, the broker may still answer a commit."""
        threads = Path(f"/proc/{self._pid}/task").iterdir()
        return all(psutil.Process(int(thread.name)).status() == psutil.STATUS_STOPPED for thread in threads)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_where_a_commit_is_carried_out_after_it_was_given_up(
    broker_process: KafkaProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = KafkaSettings(bootstrap_servers=broker_process.bootstrap_servers, partitions=2)
    admin.create_topics(kafka)
    events = some_events(users=10, visits=12)
    feeder = Feeder(kafka)
    freezer, stop = Freezer(broker_process.pid), Stop("joiner")
    monkeypatch.setattr(transaction, "COMMIT_TIMEOUT_S", COMMIT_TIMEOUT_S)

    def commit(producer: clients.WatchedProducer, timeout_s: float) -> None:
        freezer.commit(producer, timeout_s)

    monkeypatch.setattr(clients.WatchedProducer, "commit_transaction", commit)
    settings = load_settings(
        kafka=kafka.model_dump(), store={"state_dir": str(tmp_path / "state")}, stream={"joiner": JOINER}
    )
    wanted = len(expected(events, settings.stream.joiner).sessions)

    with ThreadPoolExecutor(1) as pool:
        joiner = pool.submit(run_joiner, settings, stop)
        try:
            for portion in range(PORTIONS):
                freezer.next = True
                feeder.publish(events[portion * len(events) // PORTIONS : (portion + 1) * len(events) // PORTIONS])
                eventually(lambda: joiner.done() or freezer.unanswered > portion, f"commit {portion} failed")  # noqa: B023
            for partition in range(kafka.partitions):  # time passes, so that everything closes
                feeder.publish_to(partition, impression(1, NOW_MS + 10**9, user=10_000 + partition))
                feeder.publish_to(partition, action(2, NOW_MS + 10**9, user=10_000 + partition))
            feeder.flush()
            eventually(lambda: joiner.done() or len(records(kafka, SESSIONS)) >= wanted, f"{wanted} sessions")
        finally:
            stop.set()
        joiner.result()

    assert freezer.unanswered == PORTIONS
    check_against_oracle(kafka, events)
