"""Orderings of an A/B run that must hold, with margin, on users fitted to a slice of KuaiRand: no figures.

The arms are recommenders whose order is known: items that are watched long against items at random, and the former
once more. Users, drawing of arms, visits and intervals are those of the command; there is no Kafka.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluation.ab.drive import save
from evaluation.ab.protocol import CASCADE, FROZEN, IPA, ONEREC, arm_of
from evaluation.ab.report import summarised
from evaluation.simulator.crowd import Crowd, expected_watch_ms
from evaluation.simulator.fit import fit, half_of, is_fitted, is_held_out, new_user, rates_of, states_of, walk
from stream.replay.kuairand import KuaiRand
from tests.evaluation.simulator.tagged import tagged_items

BEGIN_MS = 1_650_880_000_000
HOUR_MS = 3_600_000
HOURS, SEED, SESSION = 12, 1, 5
Recommend = Callable[[int, int], list[int]]
"""Of user and time."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    log, items = KuaiRand(), tagged_items()
    own = half_of(log, is_fitted, 300)
    rates = rates_of(own.histories, items)
    simulator = fit(walk(own, items, rates), rates)
    states = states_of(half_of(log, is_held_out, 600).histories, items, rates)
    stranger = new_user(-1, rates, len(next(iter(items.values())).embedding))
    ids = np.array(sorted(rates.items))[::8]
    watched_ms = [expected_watch_ms(simulator, stranger, items[item_id], BEGIN_MS) for item_id in ids.tolist()]
    longest = ids[np.argsort(watched_ms)[-40:]]

    def drawn(of: np.ndarray[Any, Any], salt: int) -> Recommend:
        return lambda user, at: np.random.default_rng([salt, user, at]).permutation(of)[:SESSION].tolist()

    arms = {CASCADE: drawn(ids, 1), FROZEN: drawn(ids, 4), ONEREC: drawn(longest, 2), IPA: drawn(longest, 3)}
    end_ms = BEGIN_MS + HOURS * HOUR_MS
    crowd = Crowd(simulator, items, states, seed=SEED, begin_ms=BEGIN_MS, spread_ms=HOURS * HOUR_MS // 2)
    while asks := crowd.due(end_ms):
        for ask in asks:
            crowd.react(ask, arms[arm_of(ask.user_id, SEED)](ask.user_id, ask.time_ms))
    file = tmp_path_factory.mktemp("ab") / "visits.npz"
    save(crowd.finished, BEGIN_MS, end_ms, SEED, file)
    with np.load(file) as visits:
        return summarised([{name: visits[name] for name in visits.files} | {"seed": SEED}])


@pytest.mark.parametrize("measure", ["watch_time_per_session_s", "expected_watch_time_per_session_s"])
def test_what_is_watched_longer_wins_and_its_interval_says_so(found: dict[str, Any], measure: str) -> None:
    better, worse = found["arms"][ONEREC][measure], found["arms"][CASCADE][measure]
    assert better[0] > 1.2 * worse[0]
    assert better[1] > worse[2]
    assert found["uplift"][f"{ONEREC} over {CASCADE}"][measure][1] > 0.1


@pytest.mark.parametrize("measure", ["watch_time_per_session_s", "expected_watch_time_per_session_s"])
def test_two_arms_that_recommend_alike_do_not_differ(found: dict[str, Any], measure: str) -> None:
    _, low, high = found["uplift"][f"{IPA} over {ONEREC}"][measure]
    assert low < 0 < high
