"""Freshness by hand: from the last action on an exposure to the first answer by weights that know it."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.freshness import STAGES, Learned, served, stages_ms, waits_ms
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


def test_stages_add_up_to_the_wait() -> None:
    learned = [Learned(0, 9, 1000), Learned(1, 4, 1100), Learned(0, 25, 1200), Learned(0, 9, 1300)]
    answers = [(2, 2000), (3, 2500)]
    found = served(learned, VERSIONS, answers)
    complete, stepped = np.array([1200, 1100, 1300, -1]), np.array([1500, 1600, 1700, 1500])
    stages = stages_ms(learned, found, complete, stepped, [0, 1900, 2400, 9000])
    assert {name: waits.tolist() for name, waits in stages.items()} == {
        "feedback": [200, 0],
        "joined_and_learned": [300, 500],
        "publish_wait": [400, 800],
        "published_to_served": [100, 100],
    }
    together = np.sum([stages[name] for name in STAGES], axis=0)
    assert together.tolist() == waits_ms(learned[:2], VERSIONS, answers).tolist()


def test_quantiles() -> None:
    assert quantiles([]) == {"p50": None, "p99": None}
    assert quantiles([3, 1, 2]) == {"p50": 2.0, "p99": 3.0}
