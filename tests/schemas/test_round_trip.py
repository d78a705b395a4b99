"""Whatever a record of any topic holds comes back from its bytes, and no record is too odd for the bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onerec.kafka.registry import Registry
from schemas import definitions
from schemas.bounds import violation
from schemas.codec import Codec
from schemas.packed import pack_floats, pack_longs, unpack_floats, unpack_longs
from schemas.reasons import Reason
from schemas.topics import TOPICS, Topic

WITH_RECORDS = [topic for topic in TOPICS if topic.record is not None]
INT, LONG = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
PLAIN: Mapping[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": INT,
    "long": LONG,
    "double": st.floats(allow_nan=False),  # it is not equal to itself
    "string": st.text(max_size=8),
    "bytes": st.binary(max_size=24) | st.lists(LONG, max_size=3).map(pack_longs),
}
REGISTRY = Registry(SchemaRegistryClient.new_client({"url": "mock://round-trip"}))
CODECS = {topic.name: (Codec(topic), Codec(topic, registry=REGISTRY)) for topic in WITH_RECORDS}


def record_of(kind: type, schema: Mapping[str, Any], known: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Records of a dataclass, each field within its Avro type; `known` are the types that have been defined so far."""
    hints = get_type_hints(kind)
    fields = {field["name"]: values(hints[field["name"]], field["type"], known) for field in schema["fields"]}
    return st.builds(kind, **fields)


def values(hint: Any, avro: Any, known: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a type hint within its Avro type."""
    if isinstance(avro, list):
        return st.none() | values(get_args(hint)[0], avro[1], known)
    if isinstance(avro, str):
        return PLAIN[avro] if avro in PLAIN else values(hint, known[avro], known)
    if "name" in avro:
        known[avro["name"]] = avro
    if avro["type"] == "enum":
        return st.sampled_from(list(hint))
    if avro["type"] == "record":
        return record_of(hint, avro, known)
    if avro["type"] == "array":
        assert get_origin(hint) is tuple
        return st.lists(values(get_args(hint)[0], avro["items"], known), max_size=3).map(tuple)
    assert avro["type"] == "map"
    return st.dictionaries(st.text(max_size=5), values(get_args(hint)[1], avro["values"], known), max_size=3)


def records_of(topic: Topic) -> st.SearchStrategy[Any]:
    assert topic.record is not None
    return record_of(topic.record, definitions.current()[topic.record.__name__], {})


@pytest.mark.parametrize("topic", WITH_RECORDS, ids=lambda topic: topic.name)
@hypothesis_settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_record_comes_back_in_both_framings(topic: Topic, data: st.DataObject) -> None:
    record = data.draw(records_of(topic))
    plain, registered = CODECS[topic.name]
    for writer, reader in ((plain, plain), (registered, registered), (plain, registered)):
        assert reader.decode(writer.encode(record)) == record
    broken = violation(record, now_ms=2**41)
    assert broken is None or (broken[0] in Reason and broken[1])


@given(st.lists(LONG), st.lists(st.floats(width=32, allow_nan=False)))
def test_packed_numbers_come_back(longs: list[int], floats: list[float]) -> None:
    assert unpack_longs(pack_longs(longs)) == longs
    assert unpack_floats(pack_floats(floats)) == floats


@given(st.binary(max_size=64))
def test_what_unpacks_packs_to_the_same_bytes_and_the_rest_is_refused(data: bytes) -> None:
    if len(data) % 8:
        with pytest.raises(ValueError, match="bytes length not a multiple"):
            unpack_longs(data)
    else:
        assert pack_longs(unpack_longs(data)) == data
