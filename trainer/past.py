"""What the seed is made from: the histories as they stand, and a catalogue that covers them."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays
from onerec.kafka import admin
from onerec.kafka.dead_letters import DeadLetters
from onerec.service import Stop
from onerec.settings import KafkaSettings, SeedSettings
from schemas.records import History, OffsetRange
from schemas.topics import HISTORIES
from trainer.intake import BadRecord, Intake
from trainer.state import Partition
from trainer.supply import TOKENS, Supply

LOG = logging.getLogger(__name__)
POLL_S = 0.05
TELL_S = 10.0
READ_TIMEOUT_S = 300.0
SEED_DATA = "seed_data"
"""Key of `digest_of`'s answer in the environment of a seed's start entry."""


@dataclass(frozen=True, slots=True)
class Past:
    """Histories in the order of their users' ids, and where they were read."""

    histories: list[HistoryArrays]
    ranges: tuple[OffsetRange, ...]


class _Histories:
    """The newest history of each user.

    Read as the stream is: what is refused depends on the bytes alone, not on the clock, so that the same offsets
    give the same histories whenever they are read.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self.newest: dict[int, History] = {}
        self.read = 0
        self.bad: list[BadRecord] = []
        self._intake = Intake(kafka, [HISTORIES])
        self._begin = _named(admin.beginning_offsets(kafka, HISTORIES))
        self._intake.add(self._begin)
        self._next = _named(admin.end_offsets(kafka, HISTORIES))
        self._intake.reach(self._next, READ_TIMEOUT_S)
        self._take()

    def poll(self) -> None:
        self._intake.poll(POLL_S)
        self._next = {partition: self._intake.read_to(partition) for partition in self._begin}
        self._take()

    def _take(self) -> None:
        taken = self._intake.take(self._next)
        self.bad.extend(taken.bad)
        self.read += len(taken.records)
        self.newest.update((received.record.user_id, received.record) for received in taken.records)

    def past(self) -> Past:
        """By user, so that the order of arrival does not matter; ranges of what was read."""
        ranges = tuple(
            OffsetRange(
                topic=topic,
                partition=partition,
                first_offset=first,
                next_offset=self._next[topic, partition],
                records=0,
                applied=0,
            )
            for (topic, partition), first in self._begin.items()
        )
        return Past(_by_user(self.newest), ranges)

    def close(self) -> None:
        self._intake.close()


def _named(offsets: Mapping[int, int]) -> dict[Partition, int]:
    return {(HISTORIES.name, partition): offset for partition, offset in sorted(offsets.items())}


def _by_user(newest: Mapping[int, History]) -> list[HistoryArrays]:
    return [HistoryArrays.of(newest[user]) for user in sorted(newest)]


def read_past(kafka: KafkaSettings, supply: Supply, settings: SeedSettings, stop: Stop) -> Past | None:
    """Read until neither topic has grown for `settle_s`; None where asked to stop before.

    A catalogue is needed and waited for as long as it takes; histories for `wait_s`, since a system without a
    past begins with an untrained seed.
    """
    histories = _Histories(kafka)
    try:
        past = _settled(histories, supply, settings, stop)
    finally:
        histories.close()
    letters = DeadLetters(kafka, "trainer")
    for bad in histories.bad:
        letters.refuse_message(bad.message, bad.reason, bad.detail)
    letters.flush()
    return past


def read_past_again(kafka: KafkaSettings, ranges: Iterable[OffsetRange]) -> list[HistoryArrays]:
    """The histories that `ranges` of an earlier `Past` hold today: superseded ones may have been compacted away."""
    until = {(r.topic, r.partition): r.next_offset for r in ranges}
    intake = Intake(kafka, [HISTORIES])
    try:
        intake.add({(r.topic, r.partition): r.first_offset for r in ranges})
        intake.reach(until, READ_TIMEOUT_S)
        taken = intake.take(until)
    finally:
        intake.close()
    return _by_user({received.record.user_id: received.record for received in taken.records})


def digest_of(histories: Iterable[HistoryArrays], catalogue: CatalogueSnapshot) -> str:
    """SHA-256 of all that a seed is made from, so that a later one can know whether it has the same."""
    sha = hashlib.sha256()
    for history in histories:
        sha.update(len(history.items).to_bytes(8, "little"))
        sha.update(history.items.tobytes() + history.labels.tobytes())
    order = np.argsort(catalogue.item_ids)
    for column in (catalogue.item_ids, catalogue.codes, catalogue.durations_ms):
        sha.update(column[order].astype(np.int64).tobytes())
    return sha.hexdigest()


def _settled(histories: _Histories, supply: Supply, settings: SeedSettings, stop: Stop) -> Past | None:
    begun_s = grown_s = told_s = time.monotonic()
    size = (-1, -1)
    while not stop.is_set():
        histories.poll()
        supply.refresh()
        now_s = time.monotonic()
        if size != (size := (histories.read, supply.catalogue_size)):
            grown_s = now_s
        patient = not histories.newest and now_s - begun_s < settings.wait_s
        if supply.catalogue_size and not patient and now_s - grown_s >= settings.settle_s:
            _tell_coverage(histories.newest, supply)
            return histories.past()
        if now_s - told_s >= TELL_S:
            told_s = now_s
            LOG.info("waiting: %d semantic ids and %d histories so far", supply.catalogue_size, len(histories.newest))
    return None


def _tell_coverage(histories: dict[int, History], supply: Supply) -> None:
    items = np.concatenate(
        [np.empty(0, np.int64), *(np.frombuffer(h.history_items, "<i8") for h in histories.values())]
    )
    unknown = int((supply.catalogue.leaves(items) < 0).sum())
    LOG.info("%d histories with %d events over %d items", len(histories), len(items), supply.catalogue_size)
    if unknown:
        LOG.warning("%d events are of items without a semantic id and are left out", unknown)


def tokens_range(supply: Supply) -> OffsetRange:
    """What of item-tokens the catalogue is made of."""
    read_to = supply.intake.taken_to(TOKENS)
    return OffsetRange(topic=TOKENS[0], partition=TOKENS[1], first_offset=0, next_offset=read_to, records=0, applied=0)
