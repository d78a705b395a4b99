"""Balanced k-means against the paper's Algorithm 1, written down literally."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.tokenizer import balanced_kmeans as module
from stream.tokenizer.balanced_kmeans import balanced_kmeans, capacities

Matrix = NDArray[np.float64]


def literal_algorithm_1(
    points: Matrix, first: NDArray[np.int64], max_sweeps: int
) -> tuple[Matrix, NDArray[np.int64], int]:
    """Line by line: sort the unassigned by distance to c_k as it is now, take w, update c_k at once, remove them."""
    count, clusters = len(points), len(first)
    centroids = points[first].copy()
    assignment = np.full(count, -1)
    for sweep in range(1, max_sweeps + 1):
        unassigned = list(range(count))
        fresh = np.full(count, -1)
        for k in range(clusters):
            w = count // clusters + (1 if k < count % clusters else 0)
            unassigned.sort(key=lambda row: float(((points[row] - centroids[k]) ** 2).sum()))
            taken, unassigned = unassigned[:w], unassigned[w:]
            if taken:
                centroids[k] = points[taken].sum(axis=0) / len(taken)
            fresh[taken] = k
            unassigned.sort()
        same = bool((fresh == assignment).all())
        assignment = fresh
        if same:
            return centroids, assignment, sweep
    return centroids, assignment, max_sweeps


@pytest.mark.parametrize(
    ("count", "clusters", "width", "seed"),
    [(60, 6, 4, 0), (61, 6, 4, 1), (64, 8, 2, 2), (65, 8, 8, 3), (90, 7, 3, 4), (12, 12, 2, 5), (5, 8, 2, 6)],
)
def test_equals_the_literal_algorithm(count: int, clusters: int, width: int, seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((count, width))
    first = np.random.default_rng(100 + seed).choice(count, size=clusters, replace=clusters > count)
    centroids, assignment, sweeps = literal_algorithm_1(points, first, 40)
    made = balanced_kmeans(points, clusters, rng=np.random.default_rng(100 + seed), max_sweeps=40)
    np.testing.assert_array_equal(made.assignment, assignment)
    np.testing.assert_allclose(made.centroids, centroids, rtol=1e-12, atol=1e-12)
    assert made.sweeps == sweeps
    assert (made.moved == 0) == (sweeps < 40)


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).standard_normal((500, 6))
    whole = balanced_kmeans(points, 130, rng=np.random.default_rng(1), max_sweeps=5)
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 500 * 8)
    blocks = balanced_kmeans(points, 130, rng=np.random.default_rng(1), max_sweeps=5)
    np.testing.assert_array_equal(whole.assignment, blocks.assignment)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 80), clusters=st.integers(1, 20), width=st.integers(1, 4), seed=st.integers(0, 5))
def test_every_cluster_takes_its_capacity(count: int, clusters: int, width: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(-2, 3, (count, width)).astype(np.float32)  # many equal ones
    made = balanced_kmeans(points, clusters, rng=np.random.default_rng(seed), max_sweeps=4)
    taken = np.bincount(made.assignment, minlength=clusters)
    np.testing.assert_array_equal(taken, capacities(count, clusters))
    assert taken.max() - taken.min() <= 1
    for k in np.flatnonzero(taken):
        np.testing.assert_allclose(made.centroids[k], points[made.assignment == k].mean(axis=0), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-4, 4), min_size=1, max_size=50), count=st.integers(1, 60))
def test_nearest_is_the_head_of_a_stable_sort(values: list[int], count: int) -> None:
    scores = np.array(values, np.float32)
    expected = np.sort(np.argsort(scores, kind="stable")[:count])
    np.testing.assert_array_equal(module._nearest(scores, count), expected)


@pytest.mark.parametrize("spread", [3, 1_000_000])
@pytest.mark.parametrize("sign", [1, 0, -1])
def test_nearest_with_a_guessed_bound_is_the_same(spread: int, sign: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, spread, 6 * module.SAMPLE).astype(np.float32)
    scores[::6] += sign * spread  # the sample sees only larger, or only smaller ones: its guess is off
    for count in (1, 17, 1000, len(scores) // 8 - 1):
        expected = np.sort(np.argsort(scores, kind="stable")[:count])
        np.testing.assert_array_equal(module._nearest(scores, count), expected)


def test_is_deterministic_and_refuses_nothing_to_do() -> None:
    points = np.random.default_rng(0).standard_normal((100, 4), dtype=np.float32)
    once, again = (balanced_kmeans(points, 8, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once.centroids, again.centroids)
    with pytest.raises(ValueError, match="needs points"):
        balanced_kmeans(points[:0], 8, rng=np.random.default_rng(3))
