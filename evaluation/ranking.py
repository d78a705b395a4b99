"""Hit rate, NDCG and recall of a ranking, for one visit or case with one or more positives."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

TOP = 10


def hit(ranked: Sequence[int], positives: Collection[int], k: int = TOP) -> float:
    """1 where one of the positives is among the first k, else 0 (HitRate@k)."""
    return float(any(item in positives for item in ranked[:k]))


def ndcg(ranked: Sequence[int], positives: Collection[int], k: int = TOP) -> float:
    """Discounted gain of the positives among the first k, over that of the best possible ranking (NDCG@k)."""
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(ranked[:k]) if item in positives)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(positives))))


def recall(ranked: Sequence[int], positives: Collection[int], k: int = TOP) -> float:
    """Share of the positives that are among the first k (Recall@k)."""
    return sum(item in positives for item in ranked[:k]) / len(positives)
