"""Writer's schemas from a registry, which may be any JSON, and records written with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas import definitions
from schemas.codec import Codec, DecodeError
from schemas.topics import IMPRESSIONS, Topic
from tests.hostile.records import VALID
from tests.schemas.test_foreign import impression_with, record

KINDS = ("string", ["null", "int"], {"type": "array", "items": "null"}, record(["null", "Outer"]), record("Outer"))
SCHEMAS = [definitions.current()["Impression"], *map(impression_with, KINDS)]
SEEDS = [json.dumps(schema).encode() + b"\n" + VALID["impressions"][10:] for schema in SCHEMAS]


class Registry:
    """Has one schema."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def id_of(self, topic: Topic, schema: Mapping[str, Any]) -> int:
        raise AssertionError

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        return self._schema  # type: ignore[no-any-return]


def target(data: bytes) -> None:
    """A line of JSON, then the bytes of a record."""
    text, _, body = data.partition(b"\n")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(schema, dict):
        try:
            Codec(IMPRESSIONS, registry=Registry(schema)).decode(b"\x00\x00\x00\x00\x07" + body)
        except DecodeError:
            return
