"""Sessions and preference pairs as the tensors of one step.

Letters: B sessions, P pairs, m items of a session, n items of a history, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from onerec.settings import TrainOn
from schemas.labels import POSITIVE, Label
from schemas.records import PreferencePair

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """At most m consecutive exposures of known items."""

    history: HistoryArrays
    leaves: Array  # int64 [<= m]
    labels: Array  # uint8 [<= m]
    watch_ms: int
    high_quality: bool
    frequency_weight: Array | None = None  # float32 [<= m]; None for 1


@dataclass(frozen=True, slots=True)
class SessionBatch:
    """Sessions as tensors. A leaf of -1 is an empty slot."""

    history: HistoryBatch
    leaves: Tensor  # int64 [B, m]
    codes: Tensor  # int64 [B, m, L]
    labels: Tensor  # int64 [B, m]
    weight: Tensor  # float32 [B, m]: above 0 where the next-token loss covers the exposure, 1 as a rule
    durations_ms: Tensor  # int64 [B, m]
    watch_ms: Tensor  # int64 [B]

    @property
    def mask(self) -> Tensor:
        """Bool [B, m]: where there is an item."""
        return self.leaves >= 0


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Preference pairs as tensors, with the log-probabilities of the version that made them as the reference."""

    history: HistoryBatch
    chosen: Tensor  # int64 [P, m] leaves
    rejected: Tensor  # int64 [P, m] leaves
    ref_chosen: Tensor  # float32 [P]
    ref_rejected: Tensor  # float32 [P]


def session_batch(
    rows: Sequence[SessionRow], catalogue: CatalogueSnapshot, config: ModelConfig, train_on: TrainOn
) -> SessionBatch:
    """Rows as tensors, padded to the longest session in the batch."""
    leaves = _padded([row.leaves for row in rows], -1)
    labels = _padded([row.labels for row in rows], 0)
    quality = np.array([row.high_quality for row in rows])
    weight = target_weight(labels, leaves >= 0, quality, train_on)
    for own, row in zip(weight, rows, strict=True):
        if row.frequency_weight is not None:
            own[: len(row.leaves)] *= row.frequency_weight
    return SessionBatch(
        history=history_batch([row.history for row in rows], catalogue, config),
        leaves=torch.from_numpy(leaves),
        codes=torch.from_numpy(catalogue.codes_of(leaves.clip(0))),
        labels=torch.from_numpy(labels),
        weight=torch.from_numpy(weight),
        durations_ms=torch.from_numpy(np.where(leaves >= 0, catalogue.durations_of(leaves.clip(0)), 0)),
        watch_ms=torch.tensor([row.watch_ms for row in rows]),
    )


def pair_batch(pairs: Sequence[PreferencePair], catalogue: CatalogueSnapshot, config: ModelConfig) -> PairBatch:
    """Pairs as tensors."""

    def leaves(sessions: Iterable[tuple[int, ...]]) -> Tensor:
        return torch.from_numpy(np.stack([catalogue.leaves(np.array(items, dtype=np.int64)) for items in sessions]))

    return PairBatch(
        history=history_batch([HistoryArrays.of(pair) for pair in pairs], catalogue, config),
        chosen=leaves(pair.chosen for pair in pairs),
        rejected=leaves(pair.rejected for pair in pairs),
        ref_chosen=torch.tensor([pair.chosen_log_prob for pair in pairs], dtype=torch.float32),
        ref_rejected=torch.tensor([pair.rejected_log_prob for pair in pairs], dtype=torch.float32),
    )


def target_weight(labels: Array, mask: Array, high_quality: Array, train_on: TrainOn) -> Array:
    """Float32 [B, m]: 1 for the exposures that the next-token loss covers."""
    covered: Array = mask
    if train_on is TrainOn.POSITIVES:
        covered = mask & positive(labels)
    elif train_on is TrainOn.HIGH_QUALITY:
        covered = mask & high_quality[:, None]
    return covered.astype(np.float32)


def positive(labels: Array) -> Array:
    """`schemas.labels.is_positive` of arrays."""
    marked: Array = ((labels & int(POSITIVE)) != 0) & ((labels & int(Label.DISLIKE)) == 0)
    return marked


def _padded(rows: Sequence[Array], fill: int) -> Array:
    """Int64 [B, longest row]."""
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded
