"""Counts as models: how often an item was watched long or liked, and with what else it is watched."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evaluation.baselines.cooccurrence import Cooccurrence
from evaluation.baselines.sequences import SequenceBatch, Sequences
from trainer.batches import positive

LEAST = 1e-9
"""Scores are logarithms; this stands for nothing."""


class Popularity:
    """The same for everybody: log of the positives of each item."""

    def __init__(self, sequences: Sequences, items: int) -> None:
        counts = np.bincount(sequences.items[positive(sequences.labels)], minlength=items)
        self._scores = torch.from_numpy(np.log(np.maximum(counts, LEAST))).float()

    def scores(self, batch: SequenceBatch) -> Tensor:
        """[B, N], as `training.Recommends`."""
        return self._scores.expand(len(batch), -1)


class ItemCooccurrence:
    """Log of the cosine of exposures' co-occurrence, summed over the user's exposures."""

    def __init__(self, sequences: Sequences, items: int) -> None:
        self._items = items
        self._pairs = Cooccurrence(items)
        for user in range(len(sequences)):
            self._pairs.add_history(sequences.items[sequences.user(user)])

    def scores(self, batch: SequenceBatch) -> Tensor:
        """[B, N], as `training.Recommends`."""
        rows = [tokens[tokens > 0].numpy() - 1 for tokens in batch.tokens]
        found = np.stack([self._pairs.scores(row, self._items) for row in rows])
        return torch.from_numpy(np.log(np.maximum(found, LEAST))).float()
