"""Events as an array of int64, one row each, as the compiled join takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas import definitions
from schemas.codec import SINGLE_OBJECT
from schemas.records import Action, ActionKind, Impression
from stream.joiner.native.binding import ROW, Functions
from stream.joiner.rows import ITEM, TIME_MS, ActionRow, ImpressionRow
from stream.joiner.watermark import IMPRESSIONS

HAS_A, HAS_B = 8, 9
VERSION_OF_IMPRESSION, WATCH, DURATION, PRODUCED = 5, 5, 6, 7
HEADERS = tuple(
    SINGLE_OBJECT + definitions.fingerprint_bytes(definitions.current()[record.__name__])
    for record in (Impression, Action)
)
LARGEST = 2**63 - 1


class NativeEvents:
    """See `joining.Events`. `values` are what the rows were made of, one after the other, of `sizes`."""

    def __init__(
        self, functions: Functions, source: int, values: Sequence[bytes | None], most: Mapping[str, int]
    ) -> None:
        """Decode what is in the current schema and single-object encoding, and certainly within bounds."""
        self.source = source
        self.count = len(values)
        whole = [value or b"" for value in values] if None in values else values
        self.values = b"".join(whole)  # type: ignore[arg-type]
        self.sizes = np.fromiter(map(len, whole), np.int64, self.count)  # type: ignore[arg-type]
        self.rows: NDArray[np.int64] = np.empty((self.count, ROW), np.int64)
        self.good = np.empty(self.count, np.uint8)
        limits = _most(source, most)
        decoded = functions.decode(
            source,
            HEADERS[source],
            len(HEADERS[source]),
            self.values,
            self.sizes.ctypes.data,
            self.count,
            limits.ctypes.data,
            self.rows.ctypes.data,
            self.good.ctypes.data,
        )
        self._is_whole = decoded == self.count

    def left(self) -> list[int]:
        """See `Events`."""
        return [] if self._is_whole else np.flatnonzero(self.good == 0).tolist()

    def put(self, place: int, row: ImpressionRow | ActionRow) -> None:
        """See `Events`."""
        self.rows[place] = packed_row(self.source, row)
        self.good[place] = 1

    def items(self) -> set[int]:
        """See `Events`."""
        return set(self.rows[self.good == 1, ITEM].tolist())

    def drop(self, items: set[int]) -> list[tuple[int, int]]:
        """See `Events`."""
        about = self.rows[:, ITEM].tolist()
        found = [(place, item) for place, item in enumerate(about) if self.good[place] and item in items]
        for place, _ in found:
            self.good[place] = 0
        self._is_whole = self._is_whole and not found
        return found

    def newest_ms(self) -> int | None:
        """See `Events`."""
        times = self.rows[:, TIME_MS] if self._is_whole else self.rows[self.good == 1, TIME_MS]
        return int(times.max()) if len(times) else None


def packed_row(source: int, row: ImpressionRow | ActionRow) -> list[int]:
    """A row as `onerec::Row`."""
    request, user, item, third, time_ms, first, *others, produced = row
    second = None if source == IMPRESSIONS else others[0]
    values = (request, user, item, third, time_ms, first or 0, second or 0, produced)
    return [*map(int, values), first is not None, second is not None]


def _most(source: int, most: Mapping[str, int]) -> NDArray[np.int64]:
    """`onerec::Most`: of position or kind, time, the two that may be null, and the time of production."""
    if source == IMPRESSIONS:
        named = (most.get("position", LARGEST), "time_ms", "model_version", "", "produced_ms")
    else:
        named = (len(ActionKind) - 1, "time_ms", "watch_ms", "duration_ms", "produced_ms")
    return np.array([one if isinstance(one, int) else most.get(one, LARGEST) for one in named], np.int64)
