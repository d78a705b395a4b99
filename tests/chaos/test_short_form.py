"""The short form of `make chaos`: SIGKILL in a real running system, and the oracle, which must see what it is for.

The broker is the one of the test run; where it does not keep Kafka's transaction contract the joiner is spared.
`make chaos` shows the other faults.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from chaos.brokers import Broker
from chaos.configuration import HISTORY_ITEMS
from chaos.fault import Context, Outcome
from chaos.faults import sigkill
from chaos.log_slice import read_slice
from chaos.oracle import Verdict, judge, newest_version
from chaos.system import System
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind
from schemas.topics import SESSIONS, TRAINER_JOURNAL, Topic, id_key
from tests import broker as brokers

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]
SEED = 11
READ_S = 60.0


@dataclass(frozen=True)
class Run:
    """What the killed system has led to; its topics are still there."""

    outcome: Outcome
    system: System
    exactly_once: bool

    def judge(self) -> Verdict:
        system = self.system
        return judge(system.settings, system.environment, system.directory, exactly_once=self.exactly_once)

    def records(self, topic: Topic) -> list[Any]:
        found: list[Any] = []
        follower = TopicFollower(self.system.settings.kafka, topic, lambda r: found.append(r.record), service="test")
        follower.catch_up(READ_S)
        follower.close()
        return found

    def send(self, topic: Topic, key: bytes, record: Any) -> None:
        writer = RecordWriter(self.system.settings.kafka)
        writer.send(topic, key, record)
        writer.flush(READ_S)


@pytest.fixture(scope="module")
def run(broker: brokers.Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    context = Context(
        broker=Broker(broker.kind, kafka, exactly_once=broker.exactly_once),
        directory=tmp_path_factory.mktemp("chaos"),
        long=False,
        rng=random.Random(SEED),
        log=read_slice(HISTORY_ITEMS),
    )
    outcome = sigkill.run(context)
    yield Run(outcome, context.judged[0], broker.exactly_once)
    brokers.delete_topics(context.judged[0].settings.kafka)


def test_killed_at_random_it_loses_nothing_doubles_nothing_and_has_the_same_weights(run: Run) -> None:
    print(run.outcome.seen)  # noqa: T201 - the report
    assert run.outcome.kills >= sigkill.KILLS_SHORT
    assert run.outcome.holds, run.outcome.seen


def test_the_oracle_sees_injected_differences(run: Run) -> None:
    """After the test above has shown that it finds none by itself."""
    steps = [entry for entry in run.records(TRAINER_JOURNAL) if entry.kind is JournalKind.STEP and entry.ranges]
    last: JournalEntry = steps[-1]
    key = last.model.encode()

    version, sha256 = newest_version(run.system.settings)
    other = replace(last, kind=JournalKind.PUBLISH, ranges=(), version=version + 1, weights_sha256=sha256[::-1])
    run.send(TRAINER_JOURNAL, key, other)
    found = run.judge()
    assert (found.lost, found.duplicated, found.identical) == (0, 0, False), found.detail

    session = run.records(SESSIONS)[0]
    run.send(SESSIONS, id_key(session.user_id), replace(session, session_id=session.session_id ^ 1))
    assert run.judge().lost, "a session that no step has learned from"

    run.send(TRAINER_JOURNAL, key, replace(last, step=last.step + 1))
    assert run.judge().duplicated, "a step that learns again what one has learned"
