"""The kinds of rule that schemas/bounds.py states: each makes a function that says how a record breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from schemas.labels import LABEL_VALUES
from schemas.packed import FLOAT_BYTES, LONG_BYTES, unpack_floats, unpack_longs
from schemas.reasons import Reason

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """What depends on settings."""

    max_future_ms: int = HOUR_MS
    """Times further ahead of the wall clock are refused."""
    max_watch_ms: int = DAY_MS
    """Longer watch times are refused."""


Violation = tuple[Reason, str]
Rule = Callable[[Any, int, Limits], Violation | None]


def within(bounds: tuple[int, int], *names: str, optional: bool = False) -> Rule:
    """Each field in [low, high]; without names the value itself; `optional` ones may be null."""
    low, high = bounds
    values_of = _values(names)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        for index, value in enumerate(values_of(record)):
            if not (optional and value is None) and not low <= value <= high:
                return _out_of_bounds(names, index, f"{value} is not in [{low}, {high}]")
        return None

    return rule


def time(*names: str) -> Rule:
    """Each a time in ms since the epoch, not before it and not in the future."""
    values_of = _values(names)

    def rule(record: Any, now_ms: int, limits: Limits) -> Violation | None:
        for index, value in enumerate(values_of(record)):
            if value < 0:
                return _out_of_bounds(names, index, f"{value} is before 1970")
            if value > now_ms + limits.max_future_ms:
                return Reason.FUTURE, f"{names[index]}: {value} is {value - now_ms} ms ahead of the wall clock"
        return None

    return rule


def watch(name: str, *, optional: bool = False) -> Rule:
    """A watch time in ms: not negative, not absurd."""
    value_of = attrgetter(name)

    def rule(record: Any, _now_ms: int, limits: Limits) -> Violation | None:
        value = value_of(record)
        if (optional and value is None) or 0 <= value <= limits.max_watch_ms:
            return None
        return Reason.OUT_OF_BOUNDS, f"{name}: {value} is not in [0, {limits.max_watch_ms}]"

    return rule


def finite(*names: str) -> Rule:
    """Neither NaN nor infinite."""
    values_of = _values(names)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        for index, value in enumerate(values_of(record)):
            if not math.isfinite(value):
                return Reason.NON_FINITE, f"{names[index]}: {value}"
        return None

    return rule


def packed(name: str) -> Rule:
    """Packed int64, none negative."""
    value_of = attrgetter(name)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        return _packed_problem(name, value_of(record))

    return rule


def embedding(name: str) -> Rule:
    """Packed float32, at least one, all finite."""
    value_of = attrgetter(name)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        data = value_of(record)
        if not data or len(data) % FLOAT_BYTES:
            return Reason.WRONG_WIDTH, f"{name}: {len(data)} bytes are no float32 values"
        if not math.isfinite(sum(unpack_floats(data))):
            return Reason.NON_FINITE, f"{name} has NaN or infinite values"
        return None

    return rule


def history() -> Rule:
    """`history_items`, `history_times_ms` and `history_labels`: equally many, ids, times and label bytes."""

    def rule(record: Any, now_ms: int, limits: Limits) -> Violation | None:
        items, times, labels = record.history_items, record.history_times_ms, record.history_labels
        if not len(items) == len(times) == len(labels) * LONG_BYTES:
            sizes = f"{len(items)}, {len(times)} and {len(labels)} bytes"
            return Reason.OUT_OF_BOUNDS, f"history_items, history_times_ms, history_labels: {sizes} do not fit together"
        if not labels:
            return None
        if max(labels) >= LABEL_VALUES:
            return Reason.OUT_OF_BOUNDS, f"history_labels: {max(labels)} is no sum of label bits"
        newest_ms = max(unpack_longs(times))
        if newest_ms > now_ms + limits.max_future_ms:
            return Reason.FUTURE, f"history_times_ms: {newest_ms} is {newest_ms - now_ms} ms ahead of the wall clock"
        return _packed_problem("history_items", items) or _packed_problem("history_times_ms", times)

    return rule


def not_empty(name: str) -> Rule:
    """A list or text with something in it."""
    value_of = attrgetter(name)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        return None if value_of(record) else (Reason.OUT_OF_BOUNDS, f"{name} is empty")

    return rule


def same_length(one: str, other: str) -> Rule:
    """Two lists of one length."""
    values_of = attrgetter(one, other)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        first, second = values_of(record)
        if len(first) == len(second):
            return None
        return Reason.OUT_OF_BOUNDS, f"{one} has {len(first)} values, {other} has {len(second)}"

    return rule


def no_later(first: str, second: str) -> Rule:
    """Two fields in order, the first not negative."""
    values_of = attrgetter(first, second)

    def rule(record: Any, _now_ms: int, _limits: Limits) -> Violation | None:
        low, high = values_of(record)
        return (
            None if 0 <= low <= high else (Reason.OUT_OF_BOUNDS, f"{first} {low} and {second} {high} are not in order")
        )

    return rule


def each(name: str, *rules: Rule) -> Rule:
    """These rules hold for every element of a list, or for the record in the field."""
    value_of = attrgetter(name)

    def rule(record: Any, now_ms: int, limits: Limits) -> Violation | None:
        value = value_of(record)
        for element in value if isinstance(value, tuple) else (value,):
            for inner in rules:
                broken = inner(element, now_ms, limits)
                if broken is not None:
                    return broken[0], f"{name}: {broken[1]}"
        return None

    return rule


def _values(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """The function that reads these fields, always as a tuple; without names, the value itself."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda value: (value,)
    value_of = attrgetter(names[0])
    return lambda record: (value_of(record),)


def _packed_problem(name: str, data: bytes) -> Violation | None:
    if len(data) % LONG_BYTES:
        return Reason.OUT_OF_BOUNDS, f"{name}: {len(data)} bytes are no int64 values"
    # The sign of a little-endian int64 is the highest bit of its last byte.
    if data and max(data[LONG_BYTES - 1 :: LONG_BYTES]) > 127:
        return Reason.OUT_OF_BOUNDS, f"{name} has negative values"
    return None


def _out_of_bounds(names: tuple[str, ...], index: int, what: str) -> Violation:
    return Reason.OUT_OF_BOUNDS, f"{names[index]}: {what}" if names else what
