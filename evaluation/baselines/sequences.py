"""What sequence models learn from: the exposures of each user in time order, and batches of them.

Letters: E exposures of all users in a row, B users of a batch, n exposures of one user, N items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.batches import positive

Longs = NDArray[np.int64]
PADDING = 0
"""Item i of the catalogue is token i + 1."""
NONE, PASSED, POSITIVE = 0, 1, 2
"""What the user did with an exposure, as inputs tell: nothing is known, not positive, positive."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Exposures of U users: user u has `starts[u]:starts[u + 1]`, oldest first."""

    starts: Longs  # [U + 1]
    items: Longs  # [E] rows of the catalogue
    labels: NDArray[np.uint8]  # [E] bits of schemas.labels
    watch_ms: Longs  # [E]; -1 where it is not known

    def __len__(self) -> int:
        return len(self.starts) - 1

    def last(self, count: int) -> Longs:
        """[U] where the `count` newest exposures of each user begin."""
        return np.maximum(self.starts[:-1], self.starts[1:] - count)

    def user(self, row: int) -> slice:
        """The exposures of one user."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Exposures of B users, padded on the right: tokens, marks and watch times are int64 [B, n]."""

    tokens: Tensor  # item + 1; PADDING where there is none
    marks: Tensor  # NONE, PASSED or POSITIVE
    watch_ms: Tensor  # -1 where it is not known
    labels: Tensor | None = None  # bits of schemas.labels; None where a model has changed the sequence

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def to(self, device: torch.device) -> SequenceBatch:
        """Copy to a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return SequenceBatch(self.tokens.to(device), self.marks.to(device), self.watch_ms.to(device), labels)

    @property
    def mask(self) -> Tensor:
        """Bool [B, n]: where there is an exposure."""
        return self.tokens != PADDING

    @property
    def lengths(self) -> Tensor:
        """Int64 [B]."""
        return self.mask.sum(1)


def sequence_batch(sequences: Sequences, users: Longs, length: int) -> SequenceBatch:
    """The `length` newest exposures of `users`, padded to the longest; one empty column where nobody has any."""
    first, end = sequences.last(length)[users], sequences.starts[1:][users]
    steps = np.arange(max(1, int((end - first).max())))
    mask = steps < (end - first)[:, None]
    at = np.where(mask, first[:, None] + steps, 0)
    if not len(sequences.items):
        nothing = torch.zeros(at.shape, dtype=torch.int64)
        return SequenceBatch(nothing, nothing, nothing - 1, nothing)
    marks = np.where(positive(sequences.labels[at]), POSITIVE, PASSED)
    return SequenceBatch(
        tokens=torch.from_numpy(np.where(mask, sequences.items[at] + 1, PADDING)),
        marks=torch.from_numpy(np.where(mask, marks, NONE)),
        watch_ms=torch.from_numpy(np.where(mask, sequences.watch_ms[at], -1)),
        labels=torch.from_numpy(np.where(mask, sequences.labels[at].astype(np.int64), 0)),
    )


def epoch(sequences: Sequences, length: int, size: int, random: np.random.Generator) -> Iterator[Longs]:
    """Batches of all users with two exposures or more, in random order, those of about one length together."""
    counts = np.diff(sequences.starts)
    users = np.flatnonzero(counts >= 2)
    jitter = random.uniform(0, 4, len(users))
    ordered = users[np.argsort(np.minimum(counts[users], length) + jitter, kind="stable")]
    begins = np.arange(0, len(ordered), size)
    for begin in random.permutation(begins):
        yield ordered[begin : begin + size]


def shifted(batch: SequenceBatch) -> tuple[SequenceBatch, Tensor, Tensor]:
    """Inputs [B, n - 1], the item [B, n - 1] that follows each, and where that is a positive, bool [B, n - 1].

    A user's newest exposure is a target only, so inputs are one exposure shorter than the batch.
    """
    follows = batch.mask[:, 1:]
    inputs = SequenceBatch(
        batch.tokens[:, :-1] * follows,
        batch.marks[:, :-1] * follows,
        torch.where(follows, batch.watch_ms[:, :-1], -1),
    )
    return inputs, (batch.tokens[:, 1:] - 1).clamp(min=0), batch.marks[:, 1:] == POSITIVE
