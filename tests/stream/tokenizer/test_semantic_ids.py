"""Unique semantic ids: who keeps an id and what stands in for one that is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.tokenizer import semantic_ids as module
from stream.tokenizer.semantic_ids import CatalogueFullError, SemanticIds, nearest, quantise

Array = NDArray[np.float64]
Id = tuple[int, ...]


def centroids(levels: int, codes: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((levels, codes, width))


def by_the_policy(table: Array, embedding: Array, wanted: Id, taken: set[Id]) -> Id:
    """The policy by exhaustive walk: all ids in order of (s1 first wanted then by distance, s2 ..., s3 ...)."""
    levels, codes, _ = table.shape

    def walk(prefix: Id, residual: Array) -> Id | None:
        level = len(prefix)
        if level == levels:
            return None if prefix in taken else prefix
        on_path = prefix == wanted[:level]
        order = sorted(
            range(codes),
            key=lambda k: (not (on_path and k == wanted[level]), float(((residual - table[level, k]) ** 2).sum())),
        )
        for k in order:
            found = walk((*prefix, k), residual - table[level, k])
            if found is not None:
                return found
        return None

    found = walk((), embedding)
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(levels=st.integers(1, 3), codes=st.integers(2, 3), items=st.integers(1, 27), seed=st.integers(0, 1000))
def test_placing_follows_the_policy_until_all_ids_are_taken(levels: int, codes: int, items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = centroids(levels, codes, 2, seed)
    ids, taken = SemanticIds(table), set[Id]()
    for item in range(min(items, codes**levels)):
        embedding = rng.standard_normal(2) * rng.choice([0.01, 1.0])  # small ones crowd together
        wanted: Id = tuple(quantise(embedding[None], table)[0].tolist())
        expected = by_the_policy(table, embedding, wanted, taken)
        placed = ids.place(item, embedding, wanted)
        assert placed == expected
        assert placed not in taken
        taken.add(placed)
    assert len(ids) == len(taken)


def test_a_full_node_spills_to_the_next_nearest_s2_and_then_s1() -> None:
    table = np.zeros((3, 2, 1))
    table[0, :, 0], table[1, :, 0], table[2, :, 0] = (0.0, 10.0), (0.0, 1.0), (0.0, 0.1)
    ids = SemanticIds(table)
    placed = [ids.place(item, np.array([0.0]), (0, 0, 0)) for item in range(8)]
    assert placed == [
        (0, 0, 0), (0, 0, 1),  # the last code
        (0, 1, 0), (0, 1, 1),  # (0, 0) is full: the next nearest s2
        (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1),  # 0 is full: the next nearest s1
    ]  # fmt: skip
    with pytest.raises(CatalogueFullError, match=r"2\^3"):
        ids.place(8, np.array([0.0]), (0, 0, 0))


def test_who_has_an_id_keeps_it() -> None:
    ids = SemanticIds(centroids(3, 4, 2, 0))
    assert ids.claim(1, (1, 2, 3))
    assert ids.claim(1, (1, 2, 3))
    assert not ids.claim(2, (1, 2, 3))
    assert ids.place(2, np.zeros(2), (1, 2, 3))[:2] == (1, 2)
    assert ids.place(1, np.zeros(2), (1, 2, 3)) == (1, 2, 3)
    assert len(ids) == 2


def test_quantising_is_argmin_on_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    table = centroids(3, 5, 4, 1)
    embeddings = np.random.default_rng(2).standard_normal((40, 4))
    expected = []
    for row in embeddings:
        residual, codes = row.copy(), []
        for level in range(3):
            codes.append(int(((residual - table[level]) ** 2).sum(axis=1).argmin()))
            residual -= table[level, codes[-1]]
        expected.append(codes)
    np.testing.assert_array_equal(quantise(embeddings, table), expected)
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * 5 * 8)
    np.testing.assert_array_equal(quantise(embeddings, table), expected)
    assert nearest(np.zeros((1, 1)), np.array([[1.0], [-1.0]])).tolist() == [0]  # the lower of two equally near
