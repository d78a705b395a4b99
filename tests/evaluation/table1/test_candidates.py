"""Sessions of item-wise rows against all sets by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from evaluation.table1.candidates import best_subsets, item_wise


def test_best_subsets_by_brute_force() -> None:
    scores = np.sort(np.random.default_rng(2).standard_normal(9).astype(np.float32))[::-1].copy()
    found = best_subsets(scores, 3, 20)
    sums = sorted((float(scores[list(places)].sum()) for places in itertools.combinations(range(9), 3)), reverse=True)
    assert np.allclose(scores[found].sum(1), sums[:20], atol=1e-6)
    assert found[0].tolist() == [0, 1, 2]
    assert len({tuple(places) for places in found.tolist()}) == 20


def test_all_sets_and_no_more() -> None:
    assert len(best_subsets(np.arange(5, dtype=np.float32)[::-1].copy(), 3, 99)) == 10


def test_seen_items_are_in_no_session_and_the_first_is_the_top() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    found = item_wise(scores, [np.array([1])], 2, 3, 4)
    assert found.ranking.tolist() == [[0, 2, 3, 4]]
    assert found.sessions.tolist() == [[[0, 2], [0, 3], [0, 4]]] or found.sessions[0, 1].tolist() == [0, 3]
    assert not (found.sessions == 1).any()


def test_too_few_items_leave_places_empty() -> None:
    found = item_wise(torch.tensor([[1.0, 0.5, 0.2]]), [np.array([0, 1])], 2, 2, 10)
    assert found.sessions.tolist() == [[[-1, -1], [-1, -1]]]
    assert found.ranking.tolist() == [[2, -1, -1]]
