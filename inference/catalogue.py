"""The catalogue as topic item-tokens tells it, kept up by a background thread; the serving thread takes snapshots.

A codebook's codes do not mix with another's, so each codebook has its own catalogue, and what is served is that of
the codebook whose codes the served model speaks.
"""

from __future__ import annotations

import logging
import time
from typing import Self

import torch

from inference.engine.index import IndexCache
from inference.following import FollowingThread, Turns
from onerec.catalogue import Catalogue, CatalogueSnapshot, Refusal
from onerec.kafka import admin
from onerec.kafka.dead_letters import DeadLetters
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.model.presets import ModelConfig
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.topics import ITEM_TOKENS

LOG = logging.getLogger(__name__)
POLL_S = 0.05
REBUILD_S = 0.25
REBUILD_SHARE = 0.1
"""A snapshot is made at most every REBUILD_S, and rebuilding takes at most this share of a core."""
CODEBOOKS = 2
"""So many catalogues are kept: the served codebook's and the next one's."""


class CatalogueFollower:
    """Snapshots of the catalogue, at most about a second old. Start it with `start()` or as a context manager."""

    def __init__(
        self,
        kafka: KafkaSettings,
        config: ModelConfig,
        *,
        service: str,
        indexes: IndexCache | None = None,
        device: torch.device | None = None,
    ) -> None:
        """`indexes` is an engine's: the index of each snapshot is made here, beside the serving thread."""
        self._kafka, self._config, self._service = kafka, config, service
        self._indexes, self._device = indexes, device or torch.device("cpu")
        self._catalogues: dict[int, Catalogue] = {}
        self._snapshots: dict[int, CatalogueSnapshot] = {}
        self._dirty: set[int] = set()
        self._due_s = 0.0
        self._caught_up = False
        self._refused = DeadLetters(kafka, service)
        self._codec = codec(kafka, ITEM_TOKENS)
        self._follower = TopicFollower(kafka, ITEM_TOKENS, self._on_record, service=service, refused=self._refused)
        self._thread = FollowingThread(f"{service}-catalogue", self._follow)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._thread.close()

    @property
    def caught_up(self) -> bool:
        """Whether the topic has been read to the end that it had at the start."""
        return self._caught_up

    def snapshot(self, codebook_version: int) -> CatalogueSnapshot | None:
        """The newest snapshot with this codebook's codes; None before there is an item. Raises what ended following."""
        self._thread.check()
        return self._snapshots.get(codebook_version)

    def _follow(self) -> Turns:
        try:
            ends = admin.end_offsets(self._kafka, ITEM_TOKENS)
            while True:
                self._follower.poll(POLL_S)
                if not self._caught_up:
                    self._catch_up(ends)
                elif self._dirty and time.monotonic() >= self._due_s:
                    self._rebuild()
                yield
        finally:
            self._follower.close()

    def _catch_up(self, ends: dict[int, int]) -> None:
        """Note when the topic has been read to `ends`: only then is a snapshot worth its making."""
        at = self._follower.next_offsets()
        if all(at[partition] >= end for partition, end in ends.items()):
            self._rebuild()
            self._caught_up = True
            LOG.info("items by codebook: %s", {version: len(c) for version, c in self._catalogues.items()})

    def _rebuild(self) -> None:
        started = time.monotonic()
        for version in self._dirty & self._catalogues.keys():
            snapshot = self._catalogues[version].snapshot()
            if self._indexes is not None:
                self._indexes.get(snapshot.trie, self._device)
            self._snapshots[version] = snapshot
        self._dirty.clear()
        took_s = time.monotonic() - started
        self._due_s = time.monotonic() + max(REBUILD_S, took_s / REBUILD_SHARE)

    def _on_record(self, received: Received) -> None:
        version = received.record.codebook_version
        catalogue = self._catalogue(version)
        if catalogue is None:
            detail = f"codebook {version} is older than those in use, {sorted(self._catalogues)}"
            self._refuse(received, Refusal(Reason.STALE_CODEBOOK, detail))
            return
        refusal = catalogue.apply(received.record, received.offset + 1)
        if refusal is not None:
            self._refuse(received, refusal)
            return
        self._dirty.add(version)

    def _catalogue(self, version: int) -> Catalogue | None:
        found = self._catalogues.get(version)
        if found is None and (len(self._catalogues) < CODEBOOKS or version > min(self._catalogues)):
            found = self._catalogues[version] = Catalogue(self._config.levels, self._config.codes, version)
            if len(self._catalogues) > CODEBOOKS:
                oldest = min(self._catalogues)
                del self._catalogues[oldest]
                self._snapshots.pop(oldest, None)
        return found

    def _refuse(self, received: Received, refusal: Refusal) -> None:
        self._refused.refuse(
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            timestamp_ms=received.timestamp_ms,
            key=received.key,
            value=self._codec.encode(received.record),
            reason=refusal.reason,
            detail=refusal.detail,
        )
