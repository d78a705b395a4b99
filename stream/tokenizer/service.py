"""The tokenizer service: topic items to topic item-tokens, with Faust.

Its state is its own output: at the start it reads item-tokens, so a known item keeps its id after a crash, on
another machine, or when Faust hands it a record twice. Then it catches up with what items holds, in bulk, and is
ready; from there a Faust agent tokenises what comes. One instance owns the catalogue (items has one partition);
a second one stands by, and reads item-tokens again when it is given the partition.

A record counts as done once its tokens are on the broker. The consumer group is named by the codebook's
version: with another codebook every item is read and tokenised again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException

from onerec import clock
from onerec.errors import OneRecError
from onerec.faust_service import FaustHost, run_faust_service
from onerec.kafka import offsets
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.registry import codec
from onerec.kafka.writer import RecordWriter
from onerec.settings import Settings
from onerec.weights.folder import Folder
from schemas.topics import ITEM_TOKENS, ITEMS, id_key
from stream.tokenizer import codebook as codebooks
from stream.tokenizer import metrics
from stream.tokenizer.tokenise import Refusal, Tokenised, Tokenizer

LOG = logging.getLogger(__name__)
RESTORE_TIMEOUT_S = 600.0
DELIVERY_TIMEOUT_S = 30.0
BATCH_WAIT_S = 0.02


def run_tokenizer(settings: Settings) -> int:
    """Run until told to stop; the exit code. Needs a codebook in the store and the topics."""
    return run_faust_service("tokenizer", settings, lambda host: _Service(host).start())


class _Service:
    """Kafka around a `Tokenizer`. Its blocking work runs on one thread at a time: at the start, then the host's."""

    def __init__(self, host: FaustHost) -> None:
        self._host = host
        self._started_ms = clock.now_ms()
        self._kafka = host.settings.kafka
        self._settings = host.settings.stream.tokenizer
        self._tokenizer = Tokenizer(codebooks.load(Folder(host.settings.store.uri), self._settings.codebook))
        self._codec = codec(self._kafka, ITEMS)
        self._writer = RecordWriter(self._kafka)
        self._own = TopicFollower(self._kafka, ITEM_TOKENS, self._restore, service=host.name, refused=host.refused)
        host.resources.callback(self._own.close)
        self._behind = True
        """Whether another instance may have written to item-tokens since it was last read."""
        version = self._tokenizer.codebook.version
        host.group = f"{host.name}-{version}"
        metrics.VERSION.set(version)

    def start(self) -> None:
        """Restore, catch up, and hand over to Faust."""
        self._read_own()
        try:
            self._catch_up(self._start_offsets())
        except _StoppedError:
            return
        self._host.consume_batches(ITEMS, self._handle, max_batch=self._settings.max_batch, within_s=BATCH_WAIT_S)
        self._host.app.on_partitions_assigned.connect(self._assigned, weak=False)
        self._host.ready()

    async def _assigned(self, *_: Any, **__: Any) -> None:
        """Faust gave us the partition: another instance may have had it."""
        self._behind = True
        self._reading = asyncio.ensure_future(self._host.in_thread(self._read_ahead))

    def _read_ahead(self) -> None:
        """Before the first item comes; where it fails, the next batch tries again and says so."""
        try:
            self._read_own()
        except OneRecError as error:
            LOG.warning("%s", error)

    async def _handle(self, batch: Sequence[Received]) -> None:
        for received, refusal in await self._host.in_thread(self._take, batch):
            self._refuse(received, refusal)
        self._host.refused.flush()  # the letters are on the broker before the items count as done
        now_ms = clock.now_ms()
        for received in batch:
            if received.timestamp_ms >= self._started_ms:
                metrics.LATENCY.observe(max(0.0, (now_ms - received.timestamp_ms) / 1000.0))

    def _take(self, batch: Sequence[Received]) -> list[tuple[Received, Refusal]]:
        """Tokenise, and return once the tokens are on the broker; the records that have none, with the reason."""
        if self._behind:
            self._read_own()
        outcomes = self._tokenizer.tokenise([received.record for received in batch])
        done = [outcome for outcome in outcomes if isinstance(outcome, Tokenised)]
        for tokenised in done:
            if tokenised.news:
                self._writer.send(ITEM_TOKENS, id_key(tokenised.tokens.item_id), tokenised.tokens)
        self._writer.flush(DELIVERY_TIMEOUT_S)
        for tokenised in done:
            self._tokenizer.mark_published(tokenised.tokens)
        _count(done, self._tokenizer.published)
        return [
            (received, outcome)
            for received, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, Refusal)
        ]

    def _refuse(self, received: Received, refusal: Refusal) -> None:
        self._host.refused.refuse(
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            timestamp_ms=received.timestamp_ms,
            key=received.key,
            value=self._codec.encode(received.record),
            reason=refusal.reason,
            detail=refusal.detail,
        )

    def _read_own(self) -> None:
        self._own.catch_up(RESTORE_TIMEOUT_S)
        self._behind = False

    def _restore(self, received: Received) -> None:
        refusal = self._tokenizer.restore(received.record)
        if refusal is not None:
            LOG.debug("not restored: %s", refusal.detail)

    def _start_offsets(self) -> dict[int, int]:
        """Where the group goes on; at the beginning where item-tokens or items is not the log that it knew."""
        committed = offsets.committed(self._kafka, self._host.group, ITEMS)
        ends = offsets.end_offsets(self._kafka, ITEMS)
        known = self._tokenizer.published > 0
        return {partition: offset for partition, offset in committed.items() if known and offset <= ends[partition]}

    def _catch_up(self, start: dict[int, int]) -> None:
        """Tokenise what the topic holds now without Faust, whose group takes seconds to form."""
        started_s = time.monotonic()
        waiting: list[Received] = []

        def take_waiting() -> None:
            if self._host.stop.is_set():
                raise _StoppedError
            for received, refusal in self._take(waiting):
                self._refuse(received, refusal)
            waiting.clear()

        def take(received: Received) -> None:
            waiting.append(received)
            if len(waiting) >= self._settings.max_batch:
                take_waiting()

        follower = TopicFollower(
            self._kafka, ITEMS, take, start=start, service=self._host.name, refused=self._host.refused
        )
        try:
            applied = follower.catch_up(RESTORE_TIMEOUT_S)
            if waiting:
                take_waiting()
            self._host.refused.flush()
            self._commit(follower.next_offsets())
        finally:
            follower.close()
        LOG.info(
            "codebook %d: %d items in the catalogue, %d records caught up with in %.1f s",
            self._tokenizer.codebook.version,
            self._tokenizer.published,
            applied,
            time.monotonic() - started_s,
        )

    def _commit(self, next_offsets: dict[int, int]) -> None:
        """Spare Faust what was caught up with. Where that fails it reads it again, which changes nothing."""
        try:
            offsets.commit(self._kafka, self._host.group, ITEMS, next_offsets)
        except KafkaException as error:
            LOG.info("Faust will read topic items again (%s)", error)


class _StoppedError(Exception):
    """Told to stop while catching up."""


def _count(done: Sequence[Tokenised], published: int) -> None:
    outcomes = Counter("new" if one.new else "changed" if one.news else "same" for one in done)
    for outcome, count in outcomes.items():
        metrics.ITEMS.labels(outcome).inc(count)
    metrics.COLLISIONS.inc(sum(one.moved for one in done))
    metrics.CATALOGUE.set(published)
