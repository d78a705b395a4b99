"""What a log must offer to be replayed: items, histories from before it, and exposures in time order.

Everything is columns (numpy arrays), so that a log of millions of rows is prepared without a Python loop.
An adapter is a class with these three methods; `kuairand.py` and `mapping.py` are the two there are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from onerec.errors import SettingsError

Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
DAY_MS = 86_400_000


class LogError(SettingsError):
    """The log or its mapping is wrong; the sentence names the file, the column or row, and what to mend."""


class MissingFileError(LogError):
    """A file of the log is not there."""

    def __init__(self, path: Path, remedy: str) -> None:
        super().__init__(f"{path} does not exist.", remedy)


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue, one row an item; `embeddings` are float32 [N, d]."""

    item_ids: Longs
    embeddings: Floats
    durations_ms: Longs
    author_ids: Longs
    tags: tuple[tuple[str, ...], ...]
    created_ms: Longs

    def most_seen_first(self, histories: Histories) -> Items:
        """By exposures in the histories: items published earlier go first where two want one semantic id."""
        ids, counts = np.unique(histories.items, return_counts=True)
        seen = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        order = np.argsort([-seen.get(item_id, 0) for item_id in self.item_ids.tolist()], kind="stable")
        return Items(
            item_ids=self.item_ids[order],
            embeddings=self.embeddings[order],
            durations_ms=self.durations_ms[order],
            author_ids=self.author_ids[order],
            tags=tuple(self.tags[row] for row in order.tolist()),
            created_ms=self.created_ms[order],
        )


@dataclass(frozen=True, slots=True)
class Histories:
    """What users did before the log begins: user row u has the exposures `starts[u]:starts[u + 1]`, oldest first."""

    user_ids: Longs
    starts: Longs
    items: Longs
    times_ms: Longs
    labels: Bytes
    updated_ms: Longs

    def __len__(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True, slots=True)
class Exposures:
    """The log itself, one row an exposure, in event-time order.

    `labels` holds what the user did besides viewing (like, follow, comment, share, dislike; bits of
    schemas.labels); the joiner finds long views by itself. `duration_ms` is 0 where it is unknown.
    """

    user_ids: Longs
    item_ids: Longs
    times_ms: Longs
    watch_ms: Longs
    durations_ms: Longs
    labels: Bytes

    def __len__(self) -> int:
        return len(self.user_ids)

    def rows(self, chosen: slice | Longs) -> Self:
        """The chosen rows."""
        columns: dict[str, Any] = {field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        return replace(self, **columns)

    def window(self, start_ms: int | None, events: int | None) -> Self:
        """The first `events` exposures from event time `start_ms` on; None for the log's own begin or end."""
        first = 0 if start_ms is None else int(np.searchsorted(self.times_ms, start_ms))
        return self.rows(slice(first, None if events is None else first + events))

    def later(self, days: int) -> Self:
        """The same exposures, `days` days later."""
        return replace(self, times_ms=self.times_ms + days * DAY_MS)


class Log(Protocol):
    """A recorded log. Each method may read files and compute; each is called at most once."""

    def items(self) -> Items:
        """The catalogue with embeddings made of nothing newer than the log's begin."""
        ...

    def histories(self, last: int) -> Histories:
        """The `last` newest exposures of every user from before the log's begin."""
        ...

    def exposures(self) -> Exposures:
        """The exposures to replay, in event-time order."""
        ...
