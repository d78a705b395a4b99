"""The dataclasses and the `.avsc` files say the same."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from schemas import definitions, records
from schemas.topics import TOPICS

PRIMITIVES: dict[Any, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("int", "long"),
    float: ("double",),
    str: ("string",),
    bytes: ("bytes",),
}


def nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every schema within a schema, itself included."""
    if isinstance(schema, list):
        for branch in schema:
            yield from nodes(branch)
    elif isinstance(schema, dict):
        yield schema
        for inner in ("items", "values", "type"):
            yield from nodes(schema.get(inner))
        for field in schema.get("fields", ()):
            yield from nodes(field["type"])


NAMED = {
    node["name"]: node
    for schema in definitions.current().values()
    for node in nodes(schema)
    if node.get("type") in ("record", "enum")
}
DATACLASSES = [cls for cls in vars(records).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)]
ENUMS = [
    cls for cls in vars(records).values() if isinstance(cls, type) and issubclass(cls, enum.Enum) and list(cls) != []
]


def same(hint: Any, avro: Any) -> bool:
    """Whether a type hint is what an Avro type becomes."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return isinstance(avro, list) and avro[0] == "null" and len(avro) == 2 and same(arguments[0], avro[1])
    if origin is tuple:
        return avro["type"] == "array" and same(arguments[0], avro["items"])
    if origin is not None and issubclass(origin, Mapping):
        return avro["type"] == "map" and arguments[0] is str and same(arguments[1], avro["values"])
    if hint in PRIMITIVES:
        return avro in PRIMITIVES[hint]
    name = avro["name"] if isinstance(avro, dict) else avro
    return bool(hint.__name__ == name)


def default(value: Any) -> Any:
    """A dataclass's default as JSON has it in an `.avsc`."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return list(value) if isinstance(value, tuple) else value


def test_every_record_and_enum_has_its_class() -> None:
    assert {cls.__name__ for cls in DATACLASSES} == {name for name, node in NAMED.items() if node["type"] == "record"}
    assert {cls.__name__ for cls in ENUMS if cls is not enum.StrEnum} == {
        name for name, node in NAMED.items() if node["type"] == "enum"
    }


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__name__)
def test_fields_are_those_of_the_schema(cls: type) -> None:
    schema = NAMED[cls.__name__]
    fields = dataclasses.fields(cls)
    hints = typing.get_type_hints(cls)
    assert [field.name for field in fields] == [field["name"] for field in schema["fields"]]
    for ours, avro in zip(fields, schema["fields"], strict=True):
        assert same(hints[ours.name], avro["type"]), f"{ours.name}: {hints[ours.name]} is not {avro['type']}"
        assert (ours.default is not dataclasses.MISSING) == ("default" in avro), ours.name
        if "default" in avro:
            assert default(ours.default) == avro["default"], ours.name
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert "__slots__" in vars(cls)


@pytest.mark.parametrize("cls", [cls for cls in ENUMS if cls is not enum.StrEnum], ids=lambda cls: cls.__name__)
def test_enums_have_the_symbols_of_the_schema(cls: type[enum.Enum]) -> None:
    schema = NAMED[cls.__name__]
    assert [member.value for member in cls] == schema["symbols"]
    assert schema["default"] in schema["symbols"], "without a default old readers could not read new symbols"


@pytest.mark.parametrize("name", sorted(NAMED))
def test_everything_is_documented(name: str) -> None:
    schema = NAMED[name]
    assert schema["doc"].endswith(".")
    for field in schema.get("fields", ()):
        assert field.get("doc", "").endswith("."), f"{name}.{field['name']}"


def test_every_file_is_the_record_of_a_topic() -> None:
    assert {topic.record.__name__ for topic in TOPICS if topic.record} == set(definitions.current())
