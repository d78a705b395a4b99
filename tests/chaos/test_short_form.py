"""The short form of `make chaos`: SIGKILL in a real running system, and the oracle, which must see what it is for.

The broker is the one of the test run; where it does not keep Kafka's transaction contract the joiner is spared.
`make chaos` shows the other faults.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chaos.brokers import Broker
from chaos.configuration import HISTORY_ITEMS
from chaos.fault import Context
from chaos.faults import sigkill
from chaos.log_slice import read_slice
from chaos.oracle import Verdict, judge, newest_version
from chaos.system import System
from onerec.kafka import offsets
from onerec.kafka.follow import TopicFollower
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import JournalEntry, JournalKind, OffsetRange
from schemas.topics import SESSIONS, TRAINER_JOURNAL, Topic, id_key
from tests import broker as brokers

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]
SEED = 11
READ_S = 60.0


@dataclass(frozen=True)
class Run:
    """A system that has ended; its topics are still there."""

    system: System
    exactly_once: bool

    @property
    def kafka(self) -> KafkaSettings:
        return self.system.settings.kafka

    def judge(self) -> Verdict:
        system = self.system
        return judge(system.settings, system.environment, system.directory, exactly_once=self.exactly_once)

    def records(self, topic: Topic) -> list[Any]:
        found: list[Any] = []
        follower = TopicFollower(self.kafka, topic, lambda r: found.append(r.record), service="test")
        follower.catch_up(READ_S)
        follower.close()
        return found

    def send(self, topic: Topic, key: bytes, record: Any, *, at: int | None = None) -> None:
        writer = RecordWriter(self.kafka)
        writer.send(topic, key, record, partition=at)
        writer.flush(READ_S)


def last_step(run: Run) -> JournalEntry:
    """The last one that counts."""
    steps = [entry for entry in run.records(TRAINER_JOURNAL) if entry.kind is JournalKind.STEP and entry.ranges]
    found: JournalEntry = max(steps, key=lambda entry: (entry.epoch, entry.step))
    return found


def skip_one_and_learn_one_twice(run: Run) -> None:
    """Two more sessions come; only the second is learned from, and that in two steps."""
    last, session = last_step(run), run.records(SESSIONS)[0]
    for number in (1, 2):
        run.send(SESSIONS, id_key(session.user_id), replace(session, session_id=session.session_id ^ number), at=0)
    end = offsets.end_offsets(run.kafka, SESSIONS)[0]
    learned = OffsetRange(topic=SESSIONS.name, partition=0, first_offset=end - 1, next_offset=end, records=1, applied=1)
    for number in (1, 2):
        run.send(TRAINER_JOURNAL, last.model.encode(), replace(last, step=last.step + number, ranges=(learned,)))


def announce_other_weights(run: Run) -> None:
    """The journal names a version that the steps before it do not lead to."""
    last, version = last_step(run), newest_version(run.system.settings)
    other = replace(last, kind=JournalKind.PUBLISH, ranges=(), version=version + 1, weights_sha256="0" * 64)
    run.send(TRAINER_JOURNAL, last.model.encode(), other)


def test_killed_at_random_nothing_is_lost_or_doubled_and_the_oracle_sees_what_is(
    broker: brokers.Broker, tmp_path: Path
) -> None:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    context = Context(
        broker=Broker(broker.kind, kafka, exactly_once=broker.exactly_once),
        directory=tmp_path,
        long=False,
        rng=random.Random(SEED),
        log=read_slice(HISTORY_ITEMS),
    )
    outcome = sigkill.run(context)
    print(outcome.seen)  # noqa: T201 - the report
    run = Run(context.judged[0], broker.exactly_once)
    try:
        assert outcome.kills >= sigkill.KILLS_SHORT
        assert outcome.holds, outcome.seen

        announce_other_weights(run)
        skip_one_and_learn_one_twice(run)
        found = run.judge()
        assert (found.lost, found.identical) == (1, False), found.detail
        assert found.duplicated >= 1, found.detail  # what no joiner could have made counts besides
        assert "sessions learned missing" in found.detail
        assert "sessions learned double" in found.detail
    finally:
        brokers.delete_topics(run.kafka)
