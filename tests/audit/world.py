"""A small system as it must be, on a Kafka in memory; tests spoil it, and put it on a real broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from inference.sampler.identity import pair_id_of
from onerec.kafka import clients, offsets
from onerec.kafka.registry import codec
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.records import JournalEntry, JournalKind, OffsetRange, TopicOffset, VersionStatus
from schemas.topics import (
    ACTIONS,
    HISTORIES,
    IMPRESSIONS,
    MODEL_VERSIONS,
    PREFERENCES,
    RECOMMENDATIONS,
    REQUESTS,
    SESSIONS,
    TRAINER_JOURNAL,
    Topic,
    id_key,
)
from tests.audit.joining import Joining
from tests.recovery.bus import Bus, Entry
from tests.schemas.examples import BY_TYPE
from tests.stream.joiner.events import Event, action, impression, view

RULES = JoinerSettings(
    session_items=3,
    session_gap_ms=40_000,
    feedback_window_ms=15_000,
    history_items=4,
    known_items_only=False,
)
NOW_MS = 1_650_000_000_000
USERS, VISITS, REQUESTED, BATCH = 12, 9, 20, 4
UNREAD = 5
"""Sessions at the end that no step has consumed."""


def events() -> list[Event]:
    """Visits of every user, of two once more; each exposure with a view, some with a like that may be too late."""
    made: list[Event] = []
    for visit in range(VISITS + 1):
        for user in range(1 if visit < VISITS else USERS - 1, USERS + 1):
            at_ms, item = NOW_MS + visit * 20_000 + user, 10 + (visit * 7 + user) % 50
            made.append(impression(item, at_ms, user=user, request=visit))
            made.append(view(item, at_ms + 4_000, 1_000 * (5 + visit + user), user=user, request=visit))
            if (visit + user) % 3 == 0:
                made.append(action(item, at_ms + 5_000 + 14_000 * (user % 2), user=user, request=visit))
    return sorted(made, key=lambda event: event.time_ms)


class World:
    """Topics of one partition. `set` and `drop` spoil them."""

    def __init__(self) -> None:
        self.kafka = KafkaSettings(partitions=1)
        joining = Joining(RULES)
        self.bus: Bus = joining.bus
        left = events()
        while left:
            joining.take(left[:30])
            joining.commit()
            left = left[30:]
        joining.stand_still()
        joining.commit()
        self._learn()
        self._answer()

    def records(self, topic: Topic) -> list[Any]:
        """All records of a topic; their places are their offsets."""
        topic_codec = codec(self.kafka, topic)
        return [topic_codec.decode(entry.value) for entry in self.log(topic)]

    def log(self, topic: Topic) -> list[Entry]:
        """The entries of a topic's partition."""
        return self.bus.log((topic.name, 0))

    def append(self, topic: Topic, key: bytes, record: Any) -> int:
        """Put a record on a topic; its offset."""
        self.log(topic).append(Entry(key, codec(self.kafka, topic).encode(record), NOW_MS))
        return len(self.log(topic)) - 1

    def change(self, topic: Topic, offset: int, how: Callable[[Any], dict[str, Any]]) -> int:
        """Give a record other fields; its offset."""
        entry, topic_codec = self.log(topic)[offset], codec(self.kafka, topic)
        record = topic_codec.decode(entry.value)
        entry.value = topic_codec.encode(dataclasses.replace(record, **how(record)))
        return offset

    def hide(self, topic: Topic, offset: int) -> int:
        """A record that is not there: its offset is a gap."""
        self.log(topic)[offset].state = "aborted"
        return offset

    def put_on(self, kafka: KafkaSettings) -> None:
        """Write everything to a real broker, gaps closed up, with the groups' offsets."""
        producer = clients.producer(kafka)
        for (name, _), entries in self.bus.logs.items():
            for entry in entries:
                if self.bus.visible(entry):
                    headers: Any = entry.headers
                    producer.produce(
                        kafka.topic_prefix + name, entry.value, entry.key, 0, timestamp=entry.time_ms, headers=headers
                    )
        assert producer.flush(60) == 0
        for group, topics in (("joiner", (IMPRESSIONS, ACTIONS)), ("worker", (REQUESTS,))):
            for topic in topics:
                offsets.commit(kafka, group, topic, {0: len(self.log(topic))})

    def _learn(self) -> None:
        self.journal_entry(JournalKind.START, 0, ranges=(range_of(HISTORIES, 0, 9),))
        self.journal_entry(JournalKind.STEP, 1)
        self.journal_entry(JournalKind.PUBLISH, 1, version=1)
        end, step = len(self.log(SESSIONS)) - UNREAD, 1
        for first in range(0, end, BATCH):
            step += 1
            after = min(first + BATCH, end)
            self.journal_entry(JournalKind.STEP, step, ranges=(range_of(SESSIONS, first, after),))
            if step % 3 == 0:
                self.journal_entry(JournalKind.PUBLISH, step, version=step // 3 + 1)
            if step == 5:
                self.journal_entry(JournalKind.START, step, epoch=2)
                self.journal_entry(
                    JournalKind.STEP, 6, epoch=1, ranges=(range_of(SESSIONS, 0, 9),)
                )  # of a sleeper: void
        for entry in self.records(TRAINER_JOURNAL):
            if entry.kind is JournalKind.PUBLISH:
                self._announce(entry)

    def journal_entry(self, kind: JournalKind, step: int, *, epoch: int = 0, **fields: Any) -> int:
        """Write one; its offset."""
        newest = max((entry.epoch for entry in self.records(TRAINER_JOURNAL)), default=1)
        base: JournalEntry = dataclasses.replace(
            BY_TYPE[JournalEntry], model="onerec", step=step, kind=kind, epoch=epoch or newest, refused=None
        )
        given = {"ranges": (), "version": None} | fields
        sha256 = f"{given['version']:064x}" if given["version"] else None
        return self.append(TRAINER_JOURNAL, b"onerec", dataclasses.replace(base, weights_sha256=sha256, **given))

    def _announce(self, entry: JournalEntry) -> None:
        steps = [e for e in self.records(TRAINER_JOURNAL) if e.kind is JournalKind.STEP and e.step <= entry.step]
        reached = max((r.next_offset for e in steps if e.epoch != 1 or e.step < 6 for r in e.ranges), default=0)
        record = dataclasses.replace(
            BY_TYPE[MODEL_VERSIONS.record],  # type: ignore[index]
            model="onerec",
            version=entry.version,
            step=entry.step,
            sha256=entry.weights_sha256,
            status=VersionStatus.PUBLISHED,
            offsets=(TopicOffset(topic=SESSIONS.name, partition=0, next_offset=reached),),
        )
        self.append(MODEL_VERSIONS, b"onerec", record)

    def _answer(self) -> None:
        for number in range(REQUESTED):
            ids = {"request_id": 1000 + number, "user_id": number}
            for topic in (REQUESTS, RECOMMENDATIONS, PREFERENCES):
                if topic is not PREFERENCES or number % 4 == 0:
                    record = dataclasses.replace(BY_TYPE[topic.record], **ids)  # type: ignore[index]
                    if topic is PREFERENCES:
                        record = dataclasses.replace(record, pair_id=pair_id_of(ids["request_id"]))
                    self.append(topic, id_key(number), record)


def range_of(topic: Topic, first: int, after: int) -> OffsetRange:
    """So many records, all of them applied."""
    return OffsetRange(
        topic=topic.name,
        partition=0,
        first_offset=first,
        next_offset=after,
        records=after - first,
        applied=after - first,
    )
