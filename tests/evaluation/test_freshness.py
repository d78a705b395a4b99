"""Freshness by hand: from the last action on an exposure to the first answer by weights that know it."""

from __future__ import annotations

import pytest

from evaluation.freshness import Learned, waits_ms
from evaluation.report import quantiles

VERSIONS = {1: {}, 2: {0: 10}, 3: {0: 10, 1: 5}, 5: {0: 20, 1: 5}}


@pytest.mark.parametrize(
    ("learned", "answers", "expected"),
    [
        (Learned(0, 9, 1000), [(1, 1500), (2, 3000), (2, 2000), (3, 1700)], [700]),
        (Learned(0, 9, 1000), [(1, 1500), (3, 4000)], [3000]),
        (Learned(0, 10, 1000), [(3, 4000), (5, 9000)], [8000]),
        (Learned(1, 4, 1000), [(2, 1100), (3, 1300)], [300]),
        (Learned(1, 4, 1000), [(7, 1300)], [300]),
        (Learned(0, 25, 1000), [(5, 9000)], []),
        (Learned(0, 9, 1000), [(1, 9000), (0, 9000)], []),
        (Learned(0, 9, 1000), [], []),
    ],
)
def test_waits(learned: Learned, answers: list[tuple[int, int]], expected: list[int]) -> None:
    assert waits_ms([learned], VERSIONS, answers).tolist() == expected


def test_quantiles() -> None:
    assert quantiles([]) == {"p50": None, "p99": None}
    assert quantiles([3, 1, 2]) == {"p50": 2.0, "p99": 3.0}
