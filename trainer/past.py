"""What the seed is made from: the histories as they stand, and a catalogue that covers them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np

from onerec.features import HistoryArrays
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.service import Stop
from onerec.settings import KafkaSettings, SeedSettings
from schemas.records import History, OffsetRange
from schemas.topics import HISTORIES
from trainer.supply import TOKENS, Supply

LOG = logging.getLogger(__name__)
POLL_S = 0.05
TELL_S = 10.0
READ_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Past:
    """Histories in the order of their users' ids, and where they were read."""

    histories: list[HistoryArrays]
    ranges: tuple[OffsetRange, ...]


class _Histories:
    """The newest history of each user."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.newest: dict[int, History] = {}
        self.read = 0
        self._follower = TopicFollower(kafka, HISTORIES, self._keep, service="trainer")
        self._begin = self._follower.next_offsets()
        self._follower.catch_up(READ_TIMEOUT_S)

    def _keep(self, received: Received) -> None:
        self.newest[received.record.user_id] = received.record
        self.read += 1

    def poll(self) -> None:
        self._follower.poll(POLL_S)

    def past(self) -> Past:
        """By user, so that the order of arrival does not matter; ranges of what was read."""
        ranges = tuple(
            OffsetRange(
                topic=HISTORIES.name,
                partition=partition,
                first_offset=self._begin[partition],
                next_offset=offset,
                records=0,
                applied=0,
            )
            for partition, offset in sorted(self._follower.next_offsets().items())
        )
        self._follower.close()
        return Past([HistoryArrays.of(self.newest[user]) for user in sorted(self.newest)], ranges)


def read_past(kafka: KafkaSettings, supply: Supply, settings: SeedSettings, stop: Stop) -> Past | None:
    """Read until neither topic has grown for `settle_s`; None where asked to stop before.

    A catalogue is needed and waited for as long as it takes; histories for `wait_s`, since a system without a
    past begins with an untrained seed.
    """
    histories = _Histories(kafka)
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
