"""Ends of partitions decide what "caught up" means: they must count every record of a batch."""

import pytest

from onerec.kafka.admin import beginning_offsets, end_offsets
from onerec.kafka.writer import RecordWriter
from onerec.settings import KafkaSettings
from schemas.records import ItemTokens
from schemas.topics import ITEM_TOKENS, id_key


@pytest.mark.broker
def test_the_end_is_behind_the_last_record_of_one_large_batch(kafka: KafkaSettings) -> None:
    assert end_offsets(kafka, ITEM_TOKENS) == beginning_offsets(kafka, ITEM_TOKENS) == {0: 0}
    writer = RecordWriter(kafka)
    for item in range(500):
        tokens = ItemTokens(
            item_id=item, codes=(1, 2, 3), codebook_version=1, duration_ms=1, tags=(), created_ms=1_650_000_000_000
        )
        writer.send(ITEM_TOKENS, id_key(item), tokens)
    writer.flush(60.0)
    assert end_offsets(kafka, ITEM_TOKENS) == {0: 500}
