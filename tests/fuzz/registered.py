"""Writer's schemas from a registry, which may be any JSON, and records written with them."""

from __future__ import annotations

import contextlib
import json

from confluent_kafka.schema_registry import Schema

from onerec.kafka.registry import Registry
from schemas import definitions
from schemas.codec import Codec, DecodeError
from schemas.topics import IMPRESSIONS
from tests.hostile.records import VALID
from tests.schemas.test_foreign import impression_with, record

KINDS = ("string", ["null", "int"], {"type": "array", "items": "null"}, record(["null", "Outer"]), record("Outer"))
SCHEMAS = [definitions.current()["Impression"], *map(impression_with, KINDS)]
SEEDS = [json.dumps(schema).encode() + b"\n" + VALID["impressions"][10:] for schema in SCHEMAS]


class Client:
    """Of a registry that gives one answer."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_schema(self, _schema_id: int) -> Schema:
        return Schema(self._text, "AVRO")


def target(data: bytes) -> None:
    """A line, which the registry answers with, then the bytes of a record."""
    text, _, body = data.partition(b"\n")
    registry = Registry(Client(text.decode(errors="surrogateescape")))
    with contextlib.suppress(DecodeError):
        Codec(IMPRESSIONS, registry=registry).decode(b"\x00\x00\x00\x00\x07" + body)
