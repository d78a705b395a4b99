"""Between a record's dataclass and the dict that fastavro reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from operator import attrgetter, itemgetter
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

Convert = Callable[[Any], Any]


def reader(record: type) -> Convert:
    """The function that builds `record` from fastavro's dict.

    It raises KeyError where a field is missing and for an enum symbol that the dataclass does not have. It fills
    the slots directly, since `__init__` of a frozen dataclass takes 1.7 times as long.
    """
    names = tuple(field.name for field in fields(record))
    get_all = itemgetter(*names)
    setters = tuple(getattr(record, name).__set__ for name in names)
    conversions = _conversions(record, _from_avro)
    new = object.__new__

    def build(values: dict[str, Any]) -> Any:
        for name, convert in conversions:
            values[name] = convert(values[name])
        made: Any = new(record)
        for set_slot, value in zip(setters, get_all(values)):  # noqa: B905  # equal by construction, and hot
            set_slot(made, value)
        return made

    return build


def writer(record: type) -> Convert:
    """The function that makes fastavro's dict of a `record`."""
    names = tuple(field.name for field in fields(record))
    get_all = attrgetter(*names)
    conversions = _conversions(record, _to_avro)

    def as_dict(value: Any) -> dict[str, Any]:
        values = dict(zip(names, get_all(value)))  # noqa: B905
        for name, convert in conversions:
            values[name] = convert(values[name])
        return values

    return as_dict


def _conversions(record: type, convert: Callable[[Any], Convert | None]) -> tuple[tuple[str, Convert], ...]:
    hints = get_type_hints(record)
    found = ((field.name, convert(hints[field.name])) for field in fields(record))
    return tuple((name, function) for name, function in found if function is not None)


def _from_avro(hint: Any) -> Convert | None:
    """How a field of this type is made of what fastavro read; None where it is used as it is."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        members = {member.value: member for member in hint}
        return members.__getitem__
    if isinstance(hint, type) and is_dataclass(hint):
        return reader(hint)
    if get_origin(hint) is tuple:
        element = _from_avro(get_args(hint)[0])
        return tuple if element is None else lambda values: tuple([element(value) for value in values])
    return _optional(hint, _from_avro)


def _to_avro(hint: Any) -> Convert | None:
    """How fastavro's value is made of a field of this type; None where it is used as it is."""
    if isinstance(hint, type) and is_dataclass(hint):
        return writer(hint)
    if get_origin(hint) is tuple:
        element = _to_avro(get_args(hint)[0])
        return None if element is None else lambda values: [element(value) for value in values]
    if get_origin(hint) is Mapping:
        return dict
    return _optional(hint, _to_avro)


def _optional(hint: Any, convert: Callable[[Any], Convert | None]) -> Convert | None:
    if not isinstance(hint, UnionType):
        return None
    (inner,) = (convert(option) for option in get_args(hint) if option is not NoneType)
    return None if inner is None else lambda value: None if value is None else inner(value)
