"""The catalogue as topic item-tokens feeds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.catalogue import Catalogue
from schemas.reasons import Reason
from schemas.records import ItemTokens


def tokens(item_id: int, *codes: int, **changes: Any) -> ItemTokens:
    given: dict[str, Any] = {
        "codebook_version": 1,
        "duration_ms": 1000 * item_id,
        "tags": (f"tag{item_id}",),
        "created_ms": 0,
    }
    return ItemTokens(item_id=item_id, codes=codes, **(given | changes))


def filled(*records: ItemTokens) -> Catalogue:
    catalogue = Catalogue(levels=2, codes=4)
    for offset, record in enumerate(records):
        assert catalogue.apply(record, offset + 1) is None
    return catalogue


def test_a_snapshot_holds_what_was_applied_by_leaf() -> None:
    snapshot = filled(tokens(30, 2, 1), tokens(10, 0, 3)).snapshot()
    assert len(snapshot) == 2
    assert snapshot.item_ids.tolist() == [30, 10]
    assert snapshot.codes.tolist() == snapshot.trie.codes.tolist() == [[2, 1], [0, 3]]
    assert snapshot.durations_ms.tolist() == [30_000, 10_000]
    assert snapshot.tagged("tag10").tolist() == [False, True]
    assert (snapshot.offset, snapshot.codebook_version) == (2, 1)


def test_leaves_are_found_in_any_shape_and_unknown_items_are_minus_one() -> None:
    snapshot = filled(tokens(30, 2, 1), tokens(10, 0, 3)).snapshot()
    assert snapshot.leaves(np.array([[10, 30], [11, 99]])).tolist() == [[1, 0], [-1, -1]]
    assert snapshot.leaves(np.empty(0, np.int64)).tolist() == []


def test_an_old_snapshot_does_not_change_and_leaves_keep_their_place() -> None:
    catalogue = filled(tokens(30, 2, 1))
    old = catalogue.snapshot()
    assert catalogue.snapshot() is old
    catalogue.apply(tokens(20, 2, 2), 2)
    new = catalogue.snapshot()
    assert (len(old), len(new)) == (1, 2)
    assert old.leaves(np.array([20])).tolist() == [-1]
    assert new.leaves(np.array([30, 20])).tolist() == [0, 1]


def test_a_young_snapshot_may_be_served_again() -> None:
    catalogue = filled(tokens(30, 2, 1))
    old = catalogue.snapshot(max_age_s=3600.0)
    catalogue.apply(tokens(20, 2, 2), 2)
    assert catalogue.snapshot(max_age_s=3600.0) is old
    assert len(catalogue.snapshot()) == 2


def test_an_item_that_gets_other_codes_moves_and_frees_its_old_ones() -> None:
    catalogue = filled(tokens(30, 2, 1), tokens(10, 0, 3), tokens(30, 3, 3), tokens(20, 2, 1))
    snapshot = catalogue.snapshot()
    assert snapshot.item_ids.tolist() == [30, 10, 20]
    assert snapshot.codes.tolist() == [[3, 3], [0, 3], [2, 1]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (tokens(2, 1, 1), Reason.DUPLICATE_CODES),
        (tokens(2, 1, 2, 3), Reason.OUT_OF_BOUNDS),
        (tokens(2, 1, 4), Reason.OUT_OF_BOUNDS),
        (tokens(2, -1, 0), Reason.OUT_OF_BOUNDS),
        (tokens(2, 0, 0, codebook_version=2), Reason.STALE_CODEBOOK),
    ],
)
def test_a_refused_record_says_why_and_changes_only_the_offset(record: ItemTokens, reason: Reason) -> None:
    catalogue = filled(tokens(1, 1, 1))
    refusal = catalogue.apply(record, 2)
    assert refusal is not None
    assert refusal.reason is reason
    assert "2" in refusal.detail
    assert len(catalogue.snapshot()) == 1
    assert catalogue.offset == 2


def test_more_items_than_the_first_allocation() -> None:
    catalogue = Catalogue(levels=2, codes=64)
    for item in range(3000):
        assert catalogue.apply(tokens(item, item // 64, item % 64), item + 1) is None
    snapshot = catalogue.snapshot()
    assert snapshot.leaves(np.arange(3000)).tolist() == list(range(3000))
    assert snapshot.codes[2999].tolist() == [2999 // 64, 2999 % 64]


def test_an_empty_catalogue_has_no_snapshot() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        Catalogue(levels=2, codes=4).snapshot()


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 15), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_what_a_snapshot_holds_and_what_came_since_are_one_catalogue(
    steps: list[tuple[int, int, bool]], settled: int
) -> None:
    """Against two dicts: items keep their rows, get other codes, and are refused codes that another one has now."""
    catalogue = Catalogue(levels=2, codes=4)
    codes_of: dict[int, tuple[int, int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onerec.catalogue.SETTLED", settled)
        for offset, (item, key, look) in enumerate(steps):
            codes = (key // 4, key % 4)
            taken = codes in codes_of.values() and codes_of.get(item) != codes
            refusal = catalogue.apply(tokens(item, *codes), offset + 1)
            assert (refusal is not None) == taken
            if not taken:
                codes_of[item] = codes
            if look:
                catalogue.snapshot()
    snapshot = catalogue.snapshot()
    assert snapshot.item_ids.tolist() == list(codes_of)
    assert [tuple(codes) for codes in snapshot.codes.tolist()] == list(codes_of.values())
    assert snapshot.leaves(np.array(list(codes_of))).tolist() == list(range(len(codes_of)))
    assert [snapshot.trie.leaf(codes) for codes in codes_of.values()] == list(range(len(codes_of)))


def test_lengths_beyond_31_bits_are_kept() -> None:
    snapshot = filled(tokens(30, 2, 1, duration_ms=366 * 86_400_000), tokens(10, 0, 3)).snapshot()
    assert snapshot.durations_of(np.array([0, 1])).tolist() == [366 * 86_400_000, 10_000]
