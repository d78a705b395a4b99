"""Sampling is a function of the request id: stable, nested, and as large as the share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.sampler.identity import is_sampled, pair_id_of

ids = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("step", [1, 4, 2**40 + 1])
def test_the_share_is_kept_for_sequential_and_strided_ids(share: float, step: int) -> None:
    taken = sum(is_sampled(number * step, share) for number in range(10_000))
    spread = 4 * (share * (1 - share) * 10_000) ** 0.5
    assert abs(taken - share * 10_000) <= spread


@given(ids, st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_is_part_of_a_larger_one(request_id: int, one: float, other: float) -> None:
    if is_sampled(request_id, min(one, other)):
        assert is_sampled(request_id, max(one, other))


def test_the_hash_never_changes() -> None:
    assert [number for number in range(300) if is_sampled(number, 0.01)] == [88, 200]
    assert pair_id_of(1) == 4939487509134663162


@given(ids)
def test_pair_ids_fit_a_signed_long(request_id: int) -> None:
    assert 0 <= pair_id_of(request_id) < 2**63


def test_pair_ids_differ() -> None:
    assert len({pair_id_of(number) for number in range(10_000)}) == 10_000
