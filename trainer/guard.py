"""Whether the broker still has the log that the state was trained on, and whether this trainer is still the one."""

from __future__ import annotations

import time

from onerec.kafka import admin
from onerec.settings import KafkaSettings
from schemas.topics import PREFERENCES, SESSIONS
from trainer.checkpoint import Surroundings
from trainer.intake import Intake, vanished
from trainer.journal import Journal
from trainer.state import Partition, TrainState
from trainer.supply import TOKENS, TOPICS

INTERVAL_S = 5.0


def check_log(kafka: KafkaSettings, state: TrainState, surroundings: Surroundings) -> None:
    """Raise CheckFailedError where the cluster is another one or offsets of the checkpoint are gone."""
    found = admin.cluster_id(kafka)
    if found != surroundings.cluster_id:
        raise vanished(f"its cluster was {surroundings.cluster_id}, this one is {found}")
    for topic in TOPICS:
        beginnings, ends = admin.beginning_offsets(kafka, topic), admin.end_offsets(kafka, topic)
        for partition in sorted(ends):
            offset = state.offsets.get((topic.name, partition))
            # item-tokens is read from its beginning, whatever compaction has left of it.
            begin = 0 if topic.name == TOKENS[0] else beginnings[partition]
            if offset is not None and not begin <= offset <= ends[partition]:
                raise vanished(
                    f"it goes on at offset {offset} of partition {partition} of topic {topic.name}, "
                    f"the broker has {begin} to {ends[partition]}"
                )


def first_offsets(kafka: KafkaSettings) -> dict[Partition, int]:
    """Where reading begins without a checkpoint: the first records that the broker has."""
    return {
        (topic.name, partition): offset
        for topic in (SESSIONS, PREFERENCES)
        for partition, offset in admin.beginning_offsets(kafka, topic).items()
    }


class ClusterWatch:
    """Looks now and then whether the cluster is still the same: a broker that was replaced raises no error."""

    def __init__(self, cluster_id: str) -> None:
        self._cluster_id = cluster_id
        self._next_s = time.monotonic() + INTERVAL_S

    def look(self, intake: Intake) -> None:
        """Raise CheckFailedError where another cluster answers under the same address."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + INTERVAL_S
        found = intake.cluster_id()
        if found is not None and found != self._cluster_id:
            raise vanished(f"its cluster was {self._cluster_id}, now {found} answers")


class SuccessorWatch:
    """Looks now and then whether another trainer has taken over: one that has nothing to learn would not notice."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._next_s = time.monotonic() + INTERVAL_S

    def look(self) -> None:
        """Raise CheckFailedError where one has."""
        if time.monotonic() >= self._next_s:
            self._journal.check()
            self._next_s = time.monotonic() + INTERVAL_S
