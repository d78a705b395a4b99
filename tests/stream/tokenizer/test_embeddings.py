"""Embeddings of histories and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.tokenizer.embeddings import Attributes, Recipe, _pairs, item_embeddings

ITEMS = 40
RECIPE = Recipe(width=8)
Longs = NDArray[np.int64]


def two_circles() -> tuple[Longs, Longs]:
    """Users who see only items 0..18, and users who see only items 20..38; 19 and 39 are seen by nobody."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(19) + (20 if user % 2 else 0) for user in range(60)]
    return np.concatenate(rows).astype(np.int64), np.arange(61, dtype=np.int64) * 19


def attributes(tags: Sequence[tuple[str, ...]] | None = None) -> Attributes:
    return Attributes(
        tags=tags or [("even",) if item < 20 else ("odd",) for item in range(ITEMS)],
        authors=np.full(ITEMS, -1, np.int64),
        durations_ms=np.full(ITEMS, 1000, np.int64),
    )


def cosine(made: NDArray[np.float32], one: int, other: int) -> float:
    left, right = made[one].astype(float), made[other].astype(float)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def test_items_seen_together_are_close_without_any_attribute() -> None:
    made = item_embeddings(*two_circles(), attributes([()] * ITEMS), RECIPE)
    assert made.shape == (ITEMS, 8)
    assert made.dtype == np.float32
    within = np.mean([cosine(made, 0, item) for item in range(1, 19)])
    across = np.mean([cosine(made, 0, item) for item in range(20, 39)])
    assert within > across + 0.5


def test_an_unseen_item_lies_with_its_tag_its_author_and_its_music() -> None:
    items, starts = two_circles()
    made = item_embeddings(items, starts, attributes(), RECIPE)
    assert cosine(made, 19, 3) > 0.5 > cosine(made, 19, 23)
    lone = [()] * ITEMS
    group = np.where(np.arange(ITEMS) < 20, 7, 8).astype(np.int64)
    for described in (replace(attributes(lone), authors=group), replace(attributes(lone), music=group)):
        made = item_embeddings(items, starts, described, RECIPE)
        assert cosine(made, 19, 3) > 0.5 > cosine(made, 19, 23)


def test_length_tells_items_apart_of_which_nothing_else_is_known() -> None:
    durations = np.where(np.arange(ITEMS) % 2, 5_000, 300_000).astype(np.int64)
    unknown = Attributes(tags=[()] * ITEMS, authors=np.full(ITEMS, -1, np.int64), durations_ms=durations)
    made = item_embeddings(np.empty(0, np.int64), np.zeros(1, np.int64), unknown, RECIPE)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made[0], made[2], atol=1e-6)
    assert abs(made[0] - made[1]).max() > 0.1


def test_is_deterministic_and_keeps_to_the_vocabulary() -> None:
    items, starts = two_circles()
    once, again = (item_embeddings(items, starts, attributes(), RECIPE) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    few = item_embeddings(items, starts, attributes(), Recipe(width=8, vocabulary=10))
    assert np.isfinite(few).all()
    assert cosine(few, 38, 30) > cosine(few, 38, 3)  # beyond the vocabulary, but tagged


def test_pairs_are_counted_by_distance_within_the_window_and_the_user() -> None:
    items = np.array([0, 1, 2, 0, 3, 3, 1], np.int64)  # user 0: 0 1 2 0; user 1: 3 3 1
    counts = _pairs(items, np.array([0, 4, 7], np.int64), 4, window=2)
    expected = np.zeros((4, 4))
    expected[0, 1] = 1.0 + 0.5  # beside each other, then two steps apart
    expected[0, 2] = 0.5 + 1.0
    expected[1, 2] = 1.0
    expected[1, 3] = 0.5 + 1.0  # and 3 beside itself counts for nothing
    np.testing.assert_allclose(counts, expected + expected.T)


def test_refuses_rows_that_are_not_described() -> None:
    with pytest.raises(ValueError, match="outside of the 40"):
        item_embeddings(np.array([40]), np.array([0, 1]), attributes(), RECIPE)
