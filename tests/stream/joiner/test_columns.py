"""The vectorised decoder, held equal to the codec."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.bounds import Limits, violation
from schemas.codec import Codec, DecodeError
from schemas.records import Action, ActionKind, Impression, Item
from schemas.topics import ACTIONS, IMPRESSIONS
from stream.joiner.columns import FEWEST, Columns, bounds_of
from stream.joiner.rows import action_row, impression_row

LONG = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)
IMPRESSION = st.builds(
    Impression,
    request_id=LONG,
    user_id=LONG,
    item_id=LONG,
    position=st.integers(-(2**31), 2**31 - 1),
    time_ms=LONG,
    model_version=st.none() | LONG,
    produced_ms=LONG,
)
ACTION = st.builds(
    Action,
    request_id=LONG,
    user_id=LONG,
    item_id=LONG,
    kind=st.sampled_from(list(ActionKind)),
    time_ms=LONG,
    watch_ms=st.none() | LONG,
    duration_ms=st.none() | LONG,
    produced_ms=LONG,
)
CODECS = {Impression: Codec(IMPRESSIONS), Action: Codec(ACTIONS)}
COLUMNS = {Impression: Columns(Impression), Action: Columns(Action)}
NOW_MS = 1_000
LIMITS = Limits(max_future_ms=100, max_watch_ms=200)


def row_of(record: Any) -> tuple[int | None, ...]:
    return impression_row(record) if isinstance(record, Impression) else action_row(record)


def damaged(data: bytes, draw: st.DrawFn) -> bytes:
    place = draw(st.integers(0, len(data)))
    return draw(st.sampled_from([data[:place], data[:place] + b"\xff" + data[place:], data + data[place:], b""]))


@st.composite
def batches(draw: st.DrawFn) -> tuple[type, list[bytes | None]]:
    kind, records = draw(st.sampled_from([(Impression, IMPRESSION), (Action, ACTION)]))
    values: list[bytes | None] = []
    for record in draw(st.lists(records, min_size=FEWEST, max_size=25)):
        data: bytes | None = CODECS[kind].encode(record)
        if draw(st.integers(0, 4)) == 0:
            data = draw(st.sampled_from([None, damaged(data or b"", draw)]))
        values.append(data)
    return kind, values


@hypothesis_settings(max_examples=120, deadline=None)
@given(batch=batches())
def test_a_row_is_what_the_codec_decodes_and_the_bounds_allow(batch: tuple[type, list[bytes | None]]) -> None:
    kind, values = batch
    rows = COLUMNS[kind].read(values, bounds_of(LIMITS, NOW_MS))

    assert len(rows) == len(values)
    records = CODECS[kind].decode_many(values)
    damage = any(isinstance(record, DecodeError) for record in records)
    for row, record in zip(rows, records, strict=True):
        if isinstance(record, DecodeError) or violation(record, NOW_MS, LIMITS) is not None:
            assert row is None
        else:
            # The neighbour of a damaged value may be left to the codec, for they cannot be told apart.
            assert row == row_of(record) or (row is None and damage)


def test_an_empty_and_a_small_batch_are_left_to_the_codec() -> None:
    value = CODECS[Impression].encode(impression())

    assert COLUMNS[Impression].read([], {}) == []
    assert COLUMNS[Impression].read([value] * (FEWEST - 1), {}) == [None] * (FEWEST - 1)
    assert None not in COLUMNS[Impression].read([value] * FEWEST, {})


def impression() -> Impression:
    return Impression(
        request_id=2**63 - 1, user_id=0, item_id=1, position=0, time_ms=1, model_version=None, produced_ms=1
    )


def test_kinds_are_numbered_as_in_the_schema() -> None:
    (kind,) = (field for field in COLUMNS[Action].fields if field.symbols)

    assert kind.symbols == tuple(ActionKind)


def test_a_record_of_other_types_is_refused() -> None:
    with pytest.raises(ValueError, match="embedding"):
        Columns(Item)
