"""The slope of something over several lives of a process, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from chaos.soak.trend import BLOCK_S, trend


def life(slope: float, level: float, *, minutes: float = 12.0, noise: float = 0.0, seed: int = 0) -> tuple:  # type: ignore[type-arg]
    """A look every five seconds at something that grows by `slope` an hour."""
    times_s = np.arange(0.0, 60.0 * minutes, 5.0) + 1000.0 * seed
    values = level + slope * (times_s - times_s[0]) / 3600.0
    values += np.random.default_rng(seed).normal(0.0, noise, len(times_s)) if noise else 0.0
    return times_s.tolist(), values.tolist()


def test_lives_at_different_levels_have_one_slope() -> None:
    found = trend([life(30.0, 100.0), life(30.0, 500.0, seed=1)])
    assert found is not None
    assert found.slope == pytest.approx(30.0, abs=0.1)
    assert found.high - found.low < 0.5
    assert found.level == pytest.approx(303, abs=10)
    assert found.hours == pytest.approx(0.38, abs=0.02)


def test_the_interval_has_the_true_slope_in_it_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        found = trend([life(10.0, 100.0, noise=5.0, seed=seed), life(10.0, 200.0, noise=5.0, seed=1000 + seed)])
        assert found is not None
        hits += found.low <= 10.0 <= found.high
    assert 180 <= hits <= 200


def test_looks_that_say_the_same_again_do_not_count_twice() -> None:
    """A walk without a trend: whoever takes its looks for independent finds slopes in it."""
    wrong = 0
    for seed in range(100):
        steps = np.random.default_rng(seed).normal(0.0, 1.0, 150)
        times_s = np.arange(150) * 5.0
        walk = np.convolve(steps, np.exp(-np.arange(40) / 20.0))[:150]
        found = trend([(times_s.tolist(), (100.0 + walk).tolist())])
        assert found is not None
        wrong += not found.low <= 0.0 <= found.high
    assert wrong <= 25


def test_what_is_too_short_has_no_slope() -> None:
    assert trend([]) is None
    assert trend([life(1.0, 1.0, minutes=5 * BLOCK_S / 60.0)]) is None
