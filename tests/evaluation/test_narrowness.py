"""What few items have of all first places."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluation.narrowness import share_of_most


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_the_most_frequent_items_share(items: list[int], most: int) -> None:
    counts = sorted((items.count(item) for item in set(items)), reverse=True)
    expected = sum(counts[:most]) / len(items) if items else 0.0
    assert share_of_most(np.array(items, np.int64), most) == expected
