"""Avro records of integers, many at once: columns instead of records.

Impressions and actions are integers, enums and nullable integers, and all of these are varints in Avro. So the bytes
of a batch are split into varints by one vectorised pass, and a field's column is picked by counting varints. That is
several times faster than decoding record by record. Whatever is not in exactly this form, or has a value that may be
out of bounds, is left to the codec, which knows all schemas and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas import definitions
from schemas.bounds import DURATION_MS, INT, Limits
from schemas.codec import SINGLE_OBJECT

MOST_VARINT_BYTES = 10
"""Of 64 bits: nine times seven and one in the tenth byte. Hostile bytes may hold more, which is left to the codec."""
FEWEST = 8
"""Batches below this size are left to the codec, too: the pass costs as much as so many records."""
LARGEST = 2**63 - 1
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that is a varint, or null or a varint."""

    name: str
    nullable: bool
    symbols: tuple[str, ...] = ()
    """Of an enum; its values are their numbers."""

    def most(self, bounds: Mapping[str, int]) -> int:
        """The largest value that is certainly fine."""
        return len(self.symbols) - 1 if self.symbols else bounds.get(self.name, LARGEST)


class Columns:
    """Decodes values of one record type, written with its current schema in single-object encoding."""

    def __init__(self, record: type) -> None:
        schema = definitions.current()[record.__name__]
        self.fields = tuple(_field(field) for field in schema["fields"])
        self._header = SINGLE_OBJECT + definitions.fingerprint_bytes(schema)

    def read(self, values: Sequence[bytes | None], most: Mapping[str, int]) -> list[tuple[int | None, ...] | None]:
        """For each value its fields in the schema's order, None for null; None for a value left to the codec.

        Every field of a row lies in 0 to `most` of its name, where that names it.
        """
        header = self._header
        if len(values) < FEWEST:
            return [None] * len(values)
        places = [place for place, value in enumerate(values) if value is not None and value.startswith(header)]
        rows: list[tuple[int | None, ...] | None] = [None] * len(values)
        if places:
            bodies = [values[place][len(header) :] for place in places]  # type: ignore[index]
            columns, good = self._columns(bodies, most)
            for place, row, fine in zip(places, zip(*columns, strict=True), good, strict=True):
                if fine:
                    rows[place] = row
        return rows

    def _columns(self, bodies: Sequence[bytes], most: Mapping[str, int]) -> tuple[list[list[Any]], list[bool]]:
        """A list for each field, and for each body whether it is in the fast form and within bounds."""
        data = np.frombuffer(b"".join(bodies), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, bodies), np.int64, len(bodies)))
        numbers, last, short = _varints(data)
        first = np.searchsorted(last, np.concatenate(([0], ends[:-1])))
        after = np.searchsorted(last, ends)
        whole = data[ends - 1] < 0x80 if len(data) else np.zeros(len(bodies), bool)
        long_before = np.concatenate(([0], np.cumsum(~short)))
        # No varint reaches over from the body before or into the next, and none is longer than 64 bits.
        good = whole & np.concatenate(([True], whole[:-1])) & (long_before[after] == long_before[first])
        numbers = np.concatenate((numbers, np.zeros(2 * len(self.fields) + 1, np.int64)))  # short bodies read on there
        place = first
        columns = []
        for field in self.fields:
            present = None
            if field.nullable:
                branch = numbers[place]
                present = branch == 1
                good &= present | (branch == 0)
                place = place + 1
            column = numbers[place]
            within = (column >= 0) & (column <= field.most(most))
            good &= within if present is None else within | ~present
            columns.append(_listed(column, present))
            place = place + (1 if present is None else present)
        return columns, (good & (place == after)).tolist()


def bounds_of(limits: Limits, now_ms: int) -> dict[str, int]:
    """By field the largest value that `schemas.bounds` certainly allows; what is not named may be any from 0."""
    latest_ms = now_ms + limits.max_future_ms
    return {
        "position": INT[1],
        "time_ms": latest_ms,
        "produced_ms": latest_ms,
        "watch_ms": limits.max_watch_ms,
        "duration_ms": DURATION_MS[1],
    }


def _field(field: Mapping[str, Any]) -> Field:
    kind = field["type"]
    nullable = isinstance(kind, list)
    if nullable:
        null, kind = kind
        if null != "null":
            raise ValueError(f"field {field['name']}: null has to be the first branch")
    symbols = tuple(kind["symbols"]) if isinstance(kind, Mapping) else ()
    if not symbols and kind not in ("int", "long"):
        raise ValueError(f"field {field['name']} of type {kind} is no varint")
    return Field(field["name"], nullable, symbols)


def _varints(data: NDArray[np.uint8]) -> tuple[Longs, Longs, NDArray[np.bool_]]:
    """All varints of the bytes, the place of the last byte of each, and whether each fits 64 bits."""
    last = np.flatnonzero(data < 0x80)
    first = np.concatenate(([0], last[:-1] + 1))[: len(last)]
    sizes = last - first + 1
    raw = np.zeros(len(last), np.uint64)
    for number in range(min(MOST_VARINT_BYTES, int(sizes.max(initial=0)))):
        longer = np.flatnonzero(sizes > number)
        raw[longer] |= (data[first[longer] + number] & 0x7F).astype(np.uint64) << np.uint64(7 * number)
    zigzag = (raw >> np.uint64(1)).astype(np.int64) ^ -(raw & np.uint64(1)).astype(np.int64)
    fits = (sizes < MOST_VARINT_BYTES) | ((sizes == MOST_VARINT_BYTES) & (data[last] <= 1))
    return zigzag, last, fits


def _listed(column: Longs, present: NDArray[np.bool_] | None) -> list[Any]:
    values: list[int] = column.tolist()
    if present is None:
        return values
    return [value if there else None for value, there in zip(values, present.tolist(), strict=True)]
