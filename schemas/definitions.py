"""The `.avsc` files: the current schema of each record, and the earlier ones that a log may still hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

FOLDER = Path(__file__).parent
FINGERPRINT_BYTES = 8


@cache
def current() -> Mapping[str, Mapping[str, Any]]:
    """The current schemas as they stand in the files, by record name."""
    schemas = (_read(path) for path in sorted(FOLDER.glob("*.avsc")))
    return {schema["name"]: schema for schema in schemas}


@cache
def previous(name: str) -> tuple[Mapping[str, Any], ...]:
    """Earlier schemas of the record `name`: `schemas/previous/*.avsc`."""
    schemas = (_read(path) for path in sorted((FOLDER / "previous").glob("*.avsc")))
    return tuple(schema for schema in schemas if schema["name"] == name)


def parsed(schema: Mapping[str, Any]) -> Any:
    """Parse a schema on its own, so that names which two schemas share do not meet.

    Raises fastavro's SchemaParseException where it is no Avro schema.
    """
    return parse_schema(dict(schema), named_schemas={})


def canonical(schema: Mapping[str, Any]) -> str:
    """The parsing canonical form of the Avro specification: what matters for decoding and nothing else."""
    return to_parsing_canonical_form(dict(schema))


def fingerprint_bytes(schema: Mapping[str, Any]) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, little-endian, as single-object encoding carries it."""
    return bytes.fromhex(fingerprint(canonical(schema), "CRC-64-AVRO"))


def _read(path: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema
