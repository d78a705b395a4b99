"""Every topic's records, current and previous schemas: decode, check the bounds, encode again."""

from __future__ import annotations

from schemas.bounds import violation
from schemas.codec import DecodeError
from tests.hostile.records import CODECS, VALID, WITH_RECORDS

SEEDS = [bytes([number]) + VALID[topic.name] for number, topic in enumerate(WITH_RECORDS)]
NOW_MS = 1_700_000_000_000


def target(data: bytes) -> None:
    """The first byte chooses the topic."""
    if not data:
        return
    codec = CODECS[WITH_RECORDS[data[0] % len(WITH_RECORDS)].name]
    try:
        record = codec.decode(data[1:])
    except DecodeError:
        return
    violation(record, NOW_MS)
    codec.decode(codec.encode(record))
