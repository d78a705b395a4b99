"""What a row recommends for a case, and how an item-wise row makes sessions of its scores."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class Recommended(NamedTuple):
    """For C cases: N candidate sessions, best first, and the best items, as leaves; -1 where there is none."""

    sessions: Longs  # [C, N, m]
    ranking: Longs  # [C, k]


def best_subsets(scores: Floats, size: int, count: int) -> Longs:
    """The `count` sets of `size` of the scores [n], falling, with the highest sums, best first: places [count, size].

    Fewer where there are no more sets. Exact: from a set, the next ones move one of its places on by one.
    """
    values = scores.tolist()
    first = tuple(range(size))
    heap = [(-sum(values[:size]), first)]
    known, found = {first}, list[tuple[int, ...]]()
    while heap and len(found) < count:
        cost, places = heapq.heappop(heap)
        found.append(places)
        for at, place in enumerate(places):
            moved = place + 1
            if moved == len(values) or (at + 1 < size and places[at + 1] == moved):
                continue
            other = (*places[:at], moved, *places[at + 1 :])
            if other not in known:
                known.add(other)
                heapq.heappush(heap, (cost + values[place] - values[moved], other))
    return np.array(found, np.int64).reshape(-1, size)


def item_wise(scores: Tensor, seen: list[Longs], size: int, count: int, top: int) -> Recommended:
    """Of scores [C, N items] (logits): the items that were not seen, ranked, and the sessions of the highest sums."""
    scores = scores.clone()
    for row, own in zip(scores, seen, strict=True):
        row[torch.from_numpy(own)] = -torch.inf
    kept = min(scores.shape[1], size + count)  # a set with a place beyond these has `count` better ones
    best = torch.log_softmax(scores, dim=1).topk(max(kept, min(top, scores.shape[1])), dim=1)
    return ranked(best.values.numpy(), best.indices.numpy(), size, count, top)


def ranked(values: Floats, leaves: Longs, size: int, count: int, top: int) -> Recommended:
    """The same of items [C, n] that are ranked already, with their log-probabilities; -inf is no item."""
    sessions = np.full((len(leaves), count, size), -1)
    ranking = np.where(np.isfinite(values), leaves, -1)[:, :top]
    for case, (row, own) in enumerate(zip(values, leaves, strict=True)):
        real = int(np.isfinite(row).sum())
        if real >= size:
            places = best_subsets(row[: min(real, size + count)], size, count)
            sessions[case, : len(places)] = own[places]
    return Recommended(sessions, ranking)
