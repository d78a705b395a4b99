"""Schemas that somebody else registered: which of them are safe to decode with.

Avro allows schemas for which a few bytes mean endless work: a record within itself is read by recursion in C, which
ends the process and not only the decoding, and an array of a type that takes no bytes may claim 2^62 elements. Ours
have neither, and a record that can become one of ours needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas import definitions

MAX_DEPTH = 64
"""Of the schema as JSON: far above that of any record, far below the C stack."""
PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string", "enum", "map", "array"})


def objection(schema: Mapping[str, Any]) -> str | None:
    """Why nothing may be decoded with this writer's schema; None where it is safe, and can be parsed.

    Raises fastavro's SchemaParseException where it is no Avro schema.
    """
    if _depth(schema) > MAX_DEPTH:
        return f"it is nested more than {MAX_DEPTH} deep"
    return next(_objections(definitions.parsed(schema), frozenset()), None)


def _depth(node: Any) -> int:
    """How deep lists and objects are nested, counted without recursion and no further than needed."""
    level, depth = [node], 0
    while level and depth <= MAX_DEPTH:
        level = [inner for one in level for inner in _inner(one)]
        depth += 1
    return depth


def _inner(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _objections(node: Any, around: frozenset[str]) -> Iterator[str]:
    """What is wrong with a type; `around` names the records that it stands in."""
    if isinstance(node, list):
        for branch in node:  # a branch may take no bytes, for its number takes one
            if branch not in ("null", {"type": "null"}):
                yield from _objections(branch, around)
    elif isinstance(node, str):
        if node == "null":
            yield "it has a type that takes no bytes (null)"
        elif node in around:
            yield f"record {node[:100]} contains itself"
    else:
        yield from _objections_of(node, around)


def _objections_of(node: Mapping[str, Any], around: frozenset[str]) -> Iterator[str]:
    kind = node["type"]
    if kind in ("record", "error"):
        if not node["fields"]:
            yield f"it has a type that takes no bytes (record {node['name'][:100]})"
        for field in node["fields"]:
            yield from _objections(field["type"], around | {node["name"]})
    elif kind == "fixed":
        if node["size"] < 1:
            yield f"it has a type that takes no bytes (fixed {node['name'][:100]})"
    elif kind == "array":
        yield from _objections(node["items"], around)
    elif kind == "map":
        yield from _objections(node["values"], around)
    elif not (isinstance(kind, str) and kind in PRIMITIVES):
        yield from _objections(kind, around)
