"""The joiner's vectorised decoder, held equal to the codec."""

from __future__ import annotations

from schemas.bounds import Limits, violation
from schemas.codec import SINGLE_OBJECT_BYTES, Codec, DecodeError
from schemas.records import Action, Impression
from schemas.topics import ACTIONS, IMPRESSIONS
from stream.joiner.columns import Columns, bounds_of
from stream.joiner.rows import action_row, impression_row
from tests.hostile.records import VALID

KINDS = (
    (Codec(IMPRESSIONS), Columns(Impression), impression_row, VALID["impressions"][:SINGLE_OBJECT_BYTES]),
    (Codec(ACTIONS), Columns(Action), action_row, VALID["actions"][:SINGLE_OBJECT_BYTES]),
)
BODIES = [VALID[name][SINGLE_OBJECT_BYTES:] for name in ("impressions", "actions")]
SEEDS = [bytes([number]) + b"".join(bytes([len(body)]) + body for _ in range(9)) for number, body in enumerate(BODIES)]
NOW_MS = 1_700_000_000_000
LIMITS = Limits()


def target(data: bytes) -> None:
    """The first byte chooses the record, then come bodies, each behind its length in a byte."""
    codec, columns, row_of, header = KINDS[data[:1] == b"\x01"]
    values = []
    rest = data[1:]
    while rest:
        values.append(header + rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    rows = columns.read(values, bounds_of(LIMITS, NOW_MS))
    assert len(rows) == len(values)
    for row, record in zip(rows, codec.decode_many(values), strict=True):
        if row is not None:
            assert not isinstance(record, DecodeError), record
            assert violation(record, NOW_MS, LIMITS) is None
            assert row == row_of(record)
