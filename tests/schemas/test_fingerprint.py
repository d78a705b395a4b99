"""Fingerprints are those of the Avro specification, computed here a second time from its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from schemas import definitions

EMPTY = 0xC15D213AA4D7A795
KEPT = ("name", "type", "fields", "symbols", "items", "values", "size")
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def crc_64_avro(data: bytes) -> int:
    """Bit by bit, as the specification's definition of the polynomial has it (its code uses a table)."""
    value = EMPTY
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (EMPTY if value & 1 else 0)
    return value


def canonical(schema: Any, namespace: str = "") -> str:
    """Parsing canonical form: rules PRIMITIVES, FULLNAMES, STRIP, ORDER, STRINGS, INTEGERS, WHITESPACE."""
    if isinstance(schema, str):
        full = schema if schema in PRIMITIVES or "." in schema or not namespace else f"{namespace}.{schema}"
        return json.dumps(full)
    if isinstance(schema, list):
        return "[" + ",".join(canonical(branch, namespace) for branch in schema) + "]"
    if schema["type"] in PRIMITIVES:
        return json.dumps(schema["type"])
    namespace = schema.get("namespace", namespace)
    members = []
    for key in KEPT:
        if key not in schema:
            continue
        if key == "name":
            value = json.dumps(f"{namespace}.{schema['name']}" if namespace else schema["name"])
        elif key == "fields":
            value = "[" + ",".join(field(inner, namespace) for inner in schema["fields"]) + "]"
        elif key in ("items", "values"):
            value = canonical(schema[key], namespace)
        else:
            value = json.dumps(schema[key], separators=(",", ":"))
        members.append(f'"{key}":{value}')
    return "{" + ",".join(members) + "}"


def field(schema: Mapping[str, Any], namespace: str) -> str:
    return f'{{"name":{json.dumps(schema["name"])},"type":{canonical(schema["type"], namespace)}}}'


def test_known_fingerprints() -> None:
    # From the Avro project's own test data (share/test/data/schema-tests.txt).
    assert crc_64_avro(b'"null"') == 7195948357588979594
    assert crc_64_avro(b'"int"') == 8247732601305521295
    assert definitions.fingerprint_bytes({"type": "int"}) == (8247732601305521295).to_bytes(8, "little")


@pytest.mark.parametrize("name", sorted(definitions.current()))
def test_fingerprint_is_little_endian_crc_of_the_canonical_form(name: str) -> None:
    schema = definitions.current()[name]
    assert definitions.canonical(schema) == canonical(schema)
    assert definitions.fingerprint_bytes(schema) == crc_64_avro(canonical(schema).encode()).to_bytes(8, "little")


def test_documentation_and_defaults_do_not_change_it() -> None:
    schema = json.loads(json.dumps(definitions.current()["Request"]))
    before = definitions.fingerprint_bytes(schema)
    schema["doc"] = "Something else."
    schema["fields"][0]["doc"] = "Something else."
    assert definitions.fingerprint_bytes(schema) == before
    schema["fields"][0]["name"] = "other"
    assert definitions.fingerprint_bytes(schema) != before
