"""Histories to tensors, against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from onerec.catalogue import Catalogue, CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from schemas.packed import pack_longs
from schemas.records import History, ItemTokens
from tests.model.toy import codes, config

ITEM_STEP = 7


@pytest.fixture(scope="module")
def snapshot() -> CatalogueSnapshot:
    catalogue = Catalogue(levels=3, codes=8)
    for row, item in enumerate(codes().tolist()):
        tokens = ItemTokens(
            item_id=row * ITEM_STEP, codes=tuple(item), codebook_version=1, duration_ms=0, tags=(), created_ms=0
        )
        assert catalogue.apply(tokens, row + 1) is None
    return catalogue.snapshot()


def arrays(items: list[int], labels: list[int]) -> HistoryArrays:
    return HistoryArrays(np.array(items, np.int64), np.zeros(len(items), np.int64), np.array(labels, np.uint8))


def test_batches_equal_a_loop_over_users(snapshot: CatalogueSnapshot) -> None:
    rng = np.random.default_rng(0)
    known = len(snapshot) * ITEM_STEP
    histories = []
    for size in (0, 1, 3, 8, 9, 30):
        items = rng.integers(0, known, size)  # six of seven are unknown
        items[::2] = rng.integers(0, len(snapshot), len(items[::2])) * ITEM_STEP
        histories.append(arrays(items.tolist(), rng.integers(0, 64, size).tolist()))
    batch = history_batch(histories, snapshot, config())
    for row, history in enumerate(histories):
        kept = [
            (snapshot.codes[item // ITEM_STEP].tolist(), label)
            for item, label in zip(history.items.tolist(), history.labels.tolist(), strict=True)
            if item % ITEM_STEP == 0
        ][-config().history_items :]
        assert batch.mask[row].tolist() == [True] * len(kept) + [False] * (batch.mask.shape[1] - len(kept))
        assert batch.codes[row][: len(kept)].tolist() == [item for item, _ in kept]
        assert batch.labels[row][: len(kept)].tolist() == [label for _, label in kept]


@pytest.mark.parametrize(("items", "width"), [(0, 0), (1, 8), (8, 8), (9, 16), (17, 20), (20, 20), (40, 20)])
def test_width_is_a_multiple_of_eight_up_to_the_history(snapshot: CatalogueSnapshot, items: int, width: int) -> None:
    batch = history_batch([arrays([0] * items, [1] * items)], snapshot, config(history_items=20))
    assert batch.codes.shape == (1, width, 3)
    assert int(batch.mask.sum()) == min(items, 20)


def test_arrays_of_a_record_are_views(snapshot: CatalogueSnapshot) -> None:
    record = History(
        user_id=1,
        history_items=pack_longs([7, 14]),
        history_times_ms=pack_longs([100, 200]),
        history_labels=bytes([1, 63]),
        updated_ms=200,
    )
    history = HistoryArrays.of(record)
    assert history.items.tolist() == [7, 14]
    assert history.times_ms.tolist() == [100, 200]
    assert history.labels.tolist() == [1, 63]
    assert not history.items.flags.owndata


def test_a_batch_without_users_is_refused(snapshot: CatalogueSnapshot) -> None:
    with pytest.raises(ValueError, match="at least one history"):
        history_batch([], snapshot, config())
