"""Histories of the users of some partitions, on local disk, as the compacted topic histories tells them.

A background thread follows the topic. Each batch of records and the offsets behind it are one write batch of the
store, so a restart continues where the last one stopped; state of another cluster is wiped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Self

import numpy as np

from inference.following import FollowingThread, Turns
from onerec.errors import DependencyMissingError
from onerec.features import HistoryArrays
from onerec.kafka import admin, clients
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.settings import KafkaSettings
from onerec.state.store import LocalStore
from schemas.records import History
from schemas.topics import HISTORIES, id_key

LOG = logging.getLogger(__name__)
POLL_S = 0.05
ITEM_BYTES = 17  # item id, time, label byte


class HistoryStore:
    """Newest history of each user of the assigned partitions. Start it with `start()` or as a context manager.

    `assign`, `restored` and `get` may be called from any thread.
    """

    def __init__(self, kafka: KafkaSettings, directory: Path, *, service: str) -> None:
        """The store lies in `directory`, which no other process may use.

        Raises DependencyMissingError for no broker or no topic, SettingsError where the directory is in use.
        """
        self._kafka, self._service = kafka, service
        self._ends = admin.end_offsets(kafka, HISTORIES)
        name = clients.topic_name(kafka, HISTORIES)
        self._store = LocalStore(directory, f"{admin.cluster_id(kafka)}/{name}/{len(self._ends)}")
        if any(self._position(partition) > end for partition, end in self._ends.items()):
            LOG.warning("topic %s is shorter than what was read of it; histories are read again", name)
            self._store.clear()
        self._wanted: frozenset[int] = frozenset()
        self._restored: frozenset[int] = frozenset()
        self._changes: list[tuple[bytes, bytes | None]] = []
        self._thread = FollowingThread(f"{service}-histories", self._follow)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following and put everything on disk."""
        try:
            self._thread.close()
        finally:
            self._store.close()

    def check(self) -> None:
        """Raise what stopped the following, if anything did."""
        self._thread.check()

    def assign(self, partitions: Collection[int]) -> None:
        """Follow these partitions from now on; returns at once, see `restored`."""
        wanted = frozenset(partitions)
        self._restored &= wanted
        self._wanted = wanted

    def restored(self) -> frozenset[int]:
        """Partitions that have been read to the end that they had when they were assigned."""
        return self._restored

    def wait_restored(self, timeout_s: float) -> None:
        """Wait until all assigned partitions are restored. Raises DependencyMissingError when they are not."""
        deadline_s = time.monotonic() + timeout_s
        while self._restored != self._wanted:
            self.check()
            if time.monotonic() > deadline_s:
                raise DependencyMissingError(
                    f"Histories could not be restored within {timeout_s:g} s.",
                    "See the broker's log, then start again.",
                )
            self._thread.stopping.wait(POLL_S)

    def get(self, user_ids: Iterable[int]) -> list[HistoryArrays]:
        """The newest history of each user, an empty one for those who have none."""
        return [self._unpack(self._store.get(id_key(user_id))) for user_id in user_ids]

    def _follow(self) -> Turns:
        following: frozenset[int] = frozenset()
        follower: TopicFollower | None = None
        ends: dict[int, int] = {}
        try:
            while True:
                if following != self._wanted:
                    if follower is not None:
                        follower.close()
                    following = self._wanted
                    ends = admin.end_offsets(self._kafka, HISTORIES)
                    follower = self._follower(following)
                if follower is None:
                    self._thread.stopping.wait(POLL_S)
                else:
                    self._poll(follower, POLL_S)
                    at = follower.next_offsets()
                    self._restored = frozenset(p for p in following if at[p] >= ends[p]) & self._wanted
                yield
        finally:
            if follower is not None:
                follower.close()

    def _follower(self, partitions: frozenset[int]) -> TopicFollower | None:
        if not partitions:
            return None
        return TopicFollower(
            self._kafka,
            HISTORIES,
            self._on_record,
            partitions=sorted(partitions),
            start={p: self._position(p) for p in partitions if self._position(p)},
            service=self._service,
        )

    def _poll(self, follower: TopicFollower, timeout_s: float) -> None:
        before = follower.next_offsets()
        follower.poll(timeout_s)
        after = follower.next_offsets()
        if after != before:
            self._store.write(self._changes, {str(partition): at for partition, at in after.items()})
            self._changes.clear()

    def _on_record(self, received: Received) -> None:
        history: History = received.record
        packed = history.history_items + history.history_times_ms + history.history_labels
        self._changes.append((id_key(history.user_id), packed))

    def _position(self, partition: int) -> int:
        return self._store.positions.get(str(partition), 0)

    @staticmethod
    def _unpack(packed: bytes | None) -> HistoryArrays:
        if packed is None:
            return HistoryArrays.empty()
        count = len(packed) // ITEM_BYTES
        items = np.frombuffer(packed, "<i8", count)
        times = np.frombuffer(packed, "<i8", count, 8 * count)
        return HistoryArrays(items, times, np.frombuffer(packed, np.uint8, count, 16 * count))
