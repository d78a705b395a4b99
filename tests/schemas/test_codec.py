"""Records survive the wire, whoever wrote them; bytes that are none are refused with the reason."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import definitions
from schemas.codec import Codec, DecodeError
from schemas.packed import pack_longs
from schemas.reasons import Reason
from schemas.records import Action, ActionKind, Impression
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, ITEMS, JOINER_CHANGELOG, REQUESTS, SESSIONS, TOPICS, Topic
from tests.schemas.examples import BY_TYPE, EXAMPLES

WITH_RECORDS = [topic for topic in TOPICS if topic.record is not None]
by_topic = pytest.mark.parametrize("topic", WITH_RECORDS, ids=lambda topic: topic.name)


def example(topic: Topic) -> Any:
    assert topic.record is not None
    return BY_TYPE[topic.record]


def written(schema: Mapping[str, Any], values: Mapping[str, Any]) -> bytes:
    """What a foreign writer with this schema sends."""
    out = io.BytesIO()
    out.write(b"\xc3\x01" + definitions.fingerprint_bytes(schema))
    fastavro.schemaless_writer(out, definitions.parsed(schema), values)
    return out.getvalue()


def refusal(codec: Codec, data: bytes | None) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        codec.decode(data)
    return caught.value


@by_topic
def test_round_trip(topic: Topic) -> None:
    codec = Codec(topic)
    record = example(topic)
    decoded = codec.decode(codec.encode(record))
    assert decoded == record
    assert type(decoded) is topic.record


@by_topic
def test_round_trip_without_what_is_optional(topic: Topic) -> None:
    codec = Codec(topic)
    bare = {
        field.name: field.default
        for field in dataclasses.fields(example(topic))
        if field.default is not dataclasses.MISSING
    }
    record = dataclasses.replace(example(topic), **bare)
    assert codec.decode(codec.encode(record)) == record


def test_enums_come_back_as_members() -> None:
    codec = Codec(ACTIONS)
    for kind in ActionKind:
        decoded: Action = codec.decode(codec.encode(dataclasses.replace(BY_TYPE[Action], kind=kind)))
        assert decoded.kind is kind


@by_topic
def test_every_truncation_is_refused(topic: Topic) -> None:
    codec = Codec(topic)
    data = codec.encode(example(topic))
    for size in range(len(data)):
        assert refusal(codec, data[:size]).reason in (Reason.UNDECODABLE, Reason.UNKNOWN_SCHEMA)


@by_topic
def test_trailing_bytes_are_refused(topic: Topic) -> None:
    codec = Codec(topic)
    error = refusal(codec, codec.encode(example(topic)) + b"\x00\x00")
    assert error.reason is Reason.UNDECODABLE
    assert "2 bytes too many" in error.detail


@given(data=st.binary(max_size=200), topic=st.sampled_from(WITH_RECORDS), framed=st.booleans())
def test_no_bytes_raise_anything_else(data: bytes, topic: Topic, framed: bool) -> None:
    codec = CODECS[topic.name]
    header = codec.encode(example(topic))[:10] if framed else b""
    (result,) = codec.decode_many([header + data])
    assert isinstance(result, DecodeError) or type(result) is topic.record


@given(position=st.integers(min_value=10), value=st.integers(0, 255), topic=st.sampled_from(WITH_RECORDS))
def test_a_flipped_byte_raises_nothing_else(position: int, value: int, topic: Topic) -> None:
    data = bytearray(CODECS[topic.name].encode(example(topic)))
    data[10 + position % (len(data) - 10)] = value
    (result,) = CODECS[topic.name].decode_many([bytes(data)])
    assert isinstance(result, DecodeError) or type(result) is topic.record


@pytest.mark.parametrize(
    "body",
    [b"\x0e" + b"\xfe" * 8 + b"\x7f", b"\x0e\x01", b"\x0e" + b"\xff" * 9 + b"\x01"],
    ids=["huge", "negative", "most negative"],
)
def test_absurd_lengths_cost_nothing(body: bytes) -> None:
    codec = Codec(ITEMS)
    header = codec.encode(example(ITEMS))[:10]
    started_s = time.monotonic()
    assert refusal(codec, header + body).reason is Reason.UNDECODABLE
    assert time.monotonic() - started_s < 1


def test_wrong_headers_are_named() -> None:
    codec = Codec(ACTIONS)
    data = codec.encode(BY_TYPE[Action])
    assert refusal(codec, None).reason is Reason.UNDECODABLE
    assert refusal(codec, b"").reason is Reason.UNDECODABLE
    assert refusal(codec, b'{"user_id": 7}').reason is Reason.UNDECODABLE
    assert refusal(codec, b"\xc3\x01" + b"\x11" * 8 + data[10:]).reason is Reason.UNKNOWN_SCHEMA
    assert "schema_registry_url" in refusal(codec, b"\x00\x00\x00\x00\x01" + data[10:]).detail
    other = Codec(IMPRESSIONS).encode(BY_TYPE[Impression])
    assert refusal(codec, other).reason is Reason.UNKNOWN_SCHEMA


def test_invalid_utf8_and_unknown_symbols_are_refused() -> None:
    requests = Codec(REQUESTS)
    data = requests.encode(example(REQUESTS))
    assert refusal(requests, data.replace(b"food", b"f\xff\xffd")).reason is Reason.UNDECODABLE
    actions = Codec(ACTIONS)
    plain = dataclasses.replace(BY_TYPE[Action], request_id=0, user_id=0, item_id=0)
    data = actions.encode(plain)
    assert data[10:14] == b"\x00\x00\x00\x00"
    assert refusal(actions, data[:13] + b"\x7e" + data[14:]).reason is Reason.UNDECODABLE


def test_decode_many_keeps_its_place() -> None:
    codec = Codec(ACTIONS)
    good = codec.encode(BY_TYPE[Action])
    results = codec.decode_many([good, b"junk", good, None])
    assert [isinstance(result, DecodeError) for result in results] == [False, True, False, True]
    assert results[0] == results[2] == BY_TYPE[Action]


def test_encode_says_what_does_not_fit() -> None:
    codec = Codec(ACTIONS)
    with pytest.raises(ValueError, match="no actions record"):
        codec.encode(dataclasses.replace(BY_TYPE[Action], user_id="seven"))
    with pytest.raises(ValueError, match="no actions record"):
        codec.encode(BY_TYPE[Impression])


def test_private_topics_have_no_codec() -> None:
    with pytest.raises(ValueError, match="joiner-changelog"):
        Codec(JOINER_CHANGELOG)


def newer_and_older() -> tuple[dict[str, Any], dict[str, Any]]:
    """Schemas of Impression that a later and an earlier release may have had."""
    newer = copy.deepcopy(dict(definitions.current()["Impression"]))
    newer["fields"].insert(2, {"name": "surface", "type": "string", "default": "", "doc": "Where it was shown."})
    older = copy.deepcopy(dict(definitions.current()["Impression"]))
    older["fields"] = [field for field in older["fields"] if field["name"] != "model_version"]
    return newer, older


def test_records_of_newer_and_older_writers_are_read() -> None:
    newer, older = newer_and_older()
    expected = BY_TYPE[Impression]
    values = dataclasses.asdict(expected)
    codec = Codec(IMPRESSIONS, writers=[newer, older])
    assert codec.decode(written(newer, values | {"surface": "feed"})) == expected
    del values["model_version"]
    assert codec.decode(written(older, values)) == dataclasses.replace(expected, model_version=None)
    assert refusal(Codec(IMPRESSIONS), written(older, values)).reason is Reason.UNKNOWN_SCHEMA


def test_older_readers_read_what_we_write() -> None:
    _, older = newer_and_older()
    data = Codec(IMPRESSIONS).encode(BY_TYPE[Impression])
    body = io.BytesIO(data[10:])
    writer = definitions.parsed(definitions.current()["Impression"])
    values = fastavro.schemaless_reader(body, writer, definitions.parsed(older))
    assert isinstance(values, dict)
    assert values["user_id"] == BY_TYPE[Impression].user_id
    assert "model_version" not in values


def test_a_symbol_of_tomorrow_becomes_the_default() -> None:
    newer = copy.deepcopy(dict(definitions.current()["Action"]))
    kind = next(field for field in newer["fields"] if field["name"] == "kind")
    kind["type"]["symbols"] = [*kind["type"]["symbols"], "report"]
    values = dataclasses.asdict(BY_TYPE[Action]) | {"kind": "report", "watch_ms": None}
    decoded = Codec(ACTIONS, writers=[newer]).decode(written(newer, values))
    assert decoded.kind is ActionKind.VIEW
    assert decoded.watch_ms is None


def test_previous_schemas_are_found_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, older = newer_and_older()
    (tmp_path / "previous").mkdir()
    (tmp_path / "previous" / "impression.1.avsc").write_text(json.dumps(older))
    current = definitions.current()
    monkeypatch.setattr(definitions, "FOLDER", tmp_path)
    monkeypatch.setattr(definitions, "current", lambda: current)
    definitions.previous.cache_clear()
    values = {key: value for key, value in dataclasses.asdict(BY_TYPE[Impression]).items() if key != "model_version"}
    try:
        assert Codec(IMPRESSIONS).decode(written(older, values)).model_version is None
    finally:
        definitions.previous.cache_clear()


@by_topic
def test_earlier_schemas_can_still_be_read(topic: Topic) -> None:
    from fastavro.utils import generate_many

    codec = Codec(topic)
    name = type(example(topic)).__name__
    for schema in (definitions.current()[name], *definitions.previous(name)):
        for values in generate_many(definitions.parsed(schema), 5):
            assert type(codec.decode(written(schema, values))) is topic.record


@pytest.mark.parametrize("topic", [IMPRESSIONS, ACTIONS, HISTORIES], ids=lambda topic: topic.name)
def test_decodes_fifty_thousand_records_a_second(topic: Topic) -> None:
    assert decoded_per_second(topic, example(topic)) > 50_000


def test_decodes_sessions_fast_enough() -> None:
    """A full session is six records and a history of fifty: a tenth of the rate is far above what a loop produces."""
    session = example(SESSIONS)
    times = pack_longs(range(1_650_000_000_000, 1_650_000_000_050))
    full = dataclasses.replace(
        session, history_items=times, history_times_ms=times, history_labels=bytes(50), items=session.items[:1] * 5
    )
    assert decoded_per_second(SESSIONS, full) > 10_000


def decoded_per_second(topic: Topic, record: Any) -> float:
    """The best of some short runs by CPU time, so that a busy machine does not decide the test."""
    codec = Codec(topic)
    batch = [codec.encode(record)] * 1000
    best_s = float("inf")
    for _ in range(10):
        started_s = time.process_time()
        codec.decode_many(batch)
        best_s = min(best_s, time.process_time() - started_s)
    return len(batch) / best_s


CODECS = {topic.name: Codec(topic) for topic in WITH_RECORDS}


def test_every_kind_of_record_has_an_example() -> None:
    assert {type(record) for record in EXAMPLES} == {topic.record for topic in WITH_RECORDS}
