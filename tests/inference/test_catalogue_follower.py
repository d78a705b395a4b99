"""The worker's catalogue on a real broker: codebooks kept apart, bad tokens to dead-letters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.catalogue import CatalogueFollower
from inference.engine.index import IndexCache
from onerec.kafka.follow import TopicFollower
from onerec.kafka.reader import Received
from onerec.kafka.writer import RecordWriter
from onerec.model.presets import preset
from onerec.settings import KafkaSettings
from schemas.reasons import Reason
from schemas.records import DeadLetter, ItemTokens
from schemas.topics import DEAD_LETTERS, ITEM_TOKENS, id_key
from tests.inference.loop import World, eventually
from tests.inference.publishing import settings_of

pytestmark = pytest.mark.broker


def follower_of(kafka: KafkaSettings, indexes: IndexCache | None = None) -> CatalogueFollower:
    return CatalogueFollower(kafka, preset("tiny"), service="test", indexes=indexes)


def test_codebooks_are_kept_apart_and_the_oldest_goes(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(settings_of(kafka, tmp_path))
    world.items(range(10), codebook=3)
    indexes = IndexCache()
    with follower_of(kafka, indexes) as follower:
        eventually(lambda: follower.caught_up)
        snapshot = follower.snapshot(3)
        assert snapshot is not None
        assert [len(snapshot), snapshot.offset] == [10, 10]
        assert follower.snapshot(4) is None
        made = indexes._made[-1][1]
        assert indexes.get(snapshot.trie, torch.device("cpu")) is made, "the follower has made the engine's index"
        world.items(range(4), codebook=4)
        eventually(lambda: follower.snapshot(4) is not None)
        assert follower.snapshot(3) is snapshot
        world.items(range(2), codebook=5)
        eventually(lambda: follower.snapshot(5) is not None)
        assert follower.snapshot(3) is None
        world.items(range(1), codebook=2)
        letters: list[DeadLetter] = []
        reader = TopicFollower(kafka, DEAD_LETTERS, lambda r: letters.append(r.record), service="reader")
        eventually(lambda: bool(reader.poll(0.1)))
        reader.close()
    assert letters[0].reason == Reason.STALE_CODEBOOK
    assert letters[0].key == b"1000"
    world.close()


def test_bad_tokens_are_refused_and_following_goes_on(kafka: KafkaSettings, tmp_path: Path) -> None:
    world = World(settings_of(kafka, tmp_path))
    writer = RecordWriter(kafka, linger_ms=0)
    world.items(range(5))
    for number, codes in enumerate([(0, 0, 8), (0, 0), (0, 0, 1)]):  # above K, too short, item 1001 has them
        tokens = ItemTokens(
            item_id=50 + number, codes=codes, codebook_version=1, duration_ms=1, tags=(), created_ms=1_650_000_000_000
        )
        writer.send(ITEM_TOKENS, id_key(tokens.item_id), tokens)
    writer.flush(60)
    world.items([7])
    with follower_of(kafka) as follower:
        eventually(lambda: follower.caught_up)
        snapshot = follower.snapshot(1)
        assert snapshot is not None
        assert snapshot.item_ids.tolist() == [1000, 1001, 1002, 1003, 1004, 1007]
    letters: list[Received] = []
    reader = TopicFollower(kafka, DEAD_LETTERS, letters.append, service="reader")
    reader.catch_up(60)
    reader.close()
    reasons = [letter.record.reason for letter in letters]
    assert reasons == [Reason.OUT_OF_BOUNDS, Reason.OUT_OF_BOUNDS, Reason.DUPLICATE_CODES]
    world.close()
