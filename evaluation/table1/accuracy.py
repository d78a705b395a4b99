"""Recall and NDCG of rankings: what needs no judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.ranking import ndcg, recall
from evaluation.table1.candidates import Longs
from evaluation.table1.protocol import TOP

VISITS = "visits_"
"""Before the names of the columns that are means over visits."""


def accuracy(ranking: Longs, truths: Sequence[set[int]]) -> dict[str, float]:
    """Recall@10 and NDCG@10 of rankings [C, k] over the cases that have something to find."""
    pairs = [(own, truth) for own, truth in zip(ranking.tolist(), truths, strict=True) if truth]
    return {
        "recall_at_10": float(np.mean([recall(own, truth, TOP) for own, truth in pairs])),
        "ndcg_at_10": float(np.mean([ndcg(own, truth, TOP) for own, truth in pairs])),
    }
