"""Schemas from a registry, which anybody may register, neither end nor stall the reader that decodes with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from schemas import definitions
from schemas.codec import Codec, DecodeError
from schemas.foreign import objection
from schemas.reasons import Reason
from schemas.records import Impression
from schemas.topics import IMPRESSIONS, Topic
from tests.schemas.examples import BY_TYPE

EMPTY = {"type": "record", "name": "Empty", "fields": []}
NOTHING = {"type": "fixed", "name": "Nothing", "size": 0}
INNER = {"type": "record", "name": "Inner", "fields": [{"name": "up", "type": ["null", "Outer"]}]}


def nested(depth: int) -> Any:
    kind: Any = "int"
    for _ in range(depth):
        kind = {"type": "array", "items": kind}
    return kind


def impression_with(kind: Any) -> dict[str, Any]:
    """The schema of impressions with a field in front that ours does not have."""
    schema = copy.deepcopy(dict(definitions.current()["Impression"]))
    schema["fields"].insert(0, {"name": "extra", "type": kind})
    return schema


def record(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Outer", "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(fields)]}


@pytest.mark.parametrize("name", sorted(definitions.current()))
def test_our_own_schemas_are_safe(name: str) -> None:
    assert objection(definitions.current()[name]) is None
    for schema in definitions.previous(name):
        assert objection(schema) is None


@pytest.mark.parametrize(
    "kind",
    [
        "string",
        {"type": "long", "logicalType": "timestamp-millis"},
        ["null", "int"],
        [{"type": "null"}, {"type": "map", "values": ["null", "double"]}],
        {"type": "array", "items": {"type": "enum", "name": "E", "symbols": ["A"]}},
        {"type": "fixed", "name": "Id", "size": 16},
        record({"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}, "Point"),
        nested(20),
    ],
    ids=str,
)
def test_what_a_later_producer_may_add_is_safe(kind: Any) -> None:
    assert objection(impression_with(kind)) is None


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("null", "takes no bytes"),
        ({"type": "array", "items": "null"}, "takes no bytes"),
        ({"type": "array", "items": EMPTY}, "takes no bytes"),
        ({"type": "map", "values": {"type": "array", "items": NOTHING}}, "takes no bytes"),
        (["null", {"type": "array", "items": {"type": "null"}}], "takes no bytes"),
        (record("Outer"), "contains itself"),
        (record(["null", "Outer"]), "contains itself"),
        (record({"type": "array", "items": "Outer"}), "contains itself"),
        (record({"type": "map", "values": "onerec.Outer"}), "contains itself"),
        (record(INNER), "contains itself"),
        (nested(900), "nested"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_a_few_bytes_could_turn_into_endless_work_is_refused(kind: Any, sentence: str) -> None:
    assert sentence in (objection(impression_with(kind)) or "")


class Registered:
    """A registry with one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def id_of(self, topic: Topic, schema: Mapping[str, Any]) -> int:
        raise AssertionError("a reader registers nothing")

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        return self._schema


@pytest.mark.parametrize(
    ("kind", "body"),
    [(record(["null", "Outer"]), b"\x02" * 1_000_000), ({"type": "array", "items": "null"}, b"\xff" * 9 + b"\x01")],
    ids=["a list as long as the message", "2^63 nulls"],
)
def test_a_hostile_registered_schema_is_a_refusal(kind: Any, body: bytes) -> None:
    codec = Codec(IMPRESSIONS, registry=Registered(impression_with(kind)))
    with pytest.raises(DecodeError, match="not safe to decode with") as caught:
        codec.decode(b"\x00\x00\x00\x00\x07" + body)
    assert caught.value.reason is Reason.UNKNOWN_SCHEMA


def test_a_harmless_registered_schema_decodes() -> None:
    schema = impression_with(["null", "string"])
    codec = Codec(IMPRESSIONS, registry=Registered(schema))
    ours = Codec(IMPRESSIONS).encode(BY_TYPE[Impression])
    assert codec.decode(b"\x00\x00\x00\x00\x07" + b"\x00" + ours[10:]) == BY_TYPE[Impression]
