"""From records to tensors: histories of a batch of users as the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig

BUCKET = 8
"""Histories are padded to a multiple of this, so that few shapes occur."""


class HasHistory(Protocol):
    """A record that carries a packed history: History, Session, PreferencePair."""

    @property
    def history_items(self) -> bytes:
        """Item ids, packed int64."""

    @property
    def history_times_ms(self) -> bytes:
        """Event times, packed int64."""

    @property
    def history_labels(self) -> bytes:
        """Label bytes."""


class HistoryArrays(NamedTuple):
    """The last exposures of one user, oldest first."""

    items: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    labels: NDArray[np.uint8]

    @classmethod
    def of(cls, record: HasHistory) -> Self:
        """Views of a record's packed lists, without a copy."""
        return cls(
            np.frombuffer(record.history_items, "<i8"),
            np.frombuffer(record.history_times_ms, "<i8"),
            np.frombuffer(record.history_labels, np.uint8),
        )

    @classmethod
    def empty(cls) -> Self:
        """The history of a user nobody has seen."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))


def history_batch(
    histories: Sequence[HistoryArrays], catalogue: CatalogueSnapshot, config: ModelConfig
) -> HistoryBatch:
    """Last n items that the catalogue knows of each history, as tensors padded to the longest, rounded up to 8."""
    if not histories:
        raise ValueError("A batch needs at least one history.")
    limit = config.history_items
    sizes = np.fromiter((len(h.items) for h in histories), np.int64, len(histories))
    leaves = catalogue.leaves(np.concatenate([h.items for h in histories]))
    labels = np.concatenate([h.labels for h in histories])
    user = np.repeat(np.arange(len(histories)), sizes)
    known = leaves >= 0
    user, leaves, labels = user[known], leaves[known], labels[known]
    kept = np.bincount(user, minlength=len(histories))
    lengths = np.minimum(kept, limit)
    column = np.arange(len(user)) - np.repeat(np.cumsum(kept) - lengths, kept)  # negative: older than the last n
    inside = column >= 0
    user, column = user[inside], column[inside]
    width = min(-(-int(lengths.max()) // BUCKET) * BUCKET, limit)
    codes = np.zeros((len(histories), width, config.levels), np.int64)
    marks = np.zeros((len(histories), width), np.int64)
    codes[user, column] = catalogue.codes[leaves[inside]]
    marks[user, column] = labels[inside]
    mask = np.arange(width) < lengths[:, None]
    return HistoryBatch(torch.from_numpy(codes), torch.from_numpy(marks), torch.from_numpy(mask))
