"""A simulator, items and users that need no log."""

from __future__ import annotations

import numpy as np

from evaluation.simulator.crowd import Crowd
from evaluation.simulator.fit import new_user
from evaluation.simulator.model import FEATURES, HEADS, ItemRates, Simulator
from evaluation.simulator.state import SESSION_GAP_MS, ShownItem

NOW = 1_651_000_000_000
HOUR_MS = 3_600_000
RATES = ItemRates({}, {"cats": np.array([0.6, 0.1])}, np.array([0.3, 0.02]))
ITEMS = {item_id: ShownItem(item_id, np.eye(4)[item_id % 4], 40_000, 7, ("cats",)) for item_id in range(100)}


def simulator(*, stay: float = 0.0, like: float = -2.0) -> Simulator:
    """With so many log-odds of staying and of liking."""
    weights = np.zeros((len(HEADS), len(FEATURES) + 1))
    weights[0, FEATURES.index("affinity")] = 2.0
    weights[1, 0], weights[2, 0], weights[3, 0] = like, -3.0, stay
    ratios = np.stack([np.linspace(0, 0.99, 65), np.linspace(1, 4, 65)])
    returns = np.linspace(SESSION_GAP_MS + 1, 4 * HOUR_MS, 65)
    return Simulator(RATES, weights, np.tile(ratios, (7, 1, 1)), returns)


def crowd(users: int, *, stay: float = 0.0, like: float = -2.0, seed: int = 1) -> Crowd:
    """Users 0 to `users` - 1, who all come within the first hour from NOW on."""
    states = {user_id: new_user(user_id, RATES, 4) for user_id in range(users)}
    return Crowd(simulator(stay=stay, like=like), ITEMS, states, seed=seed, begin_ms=NOW, spread_ms=HOUR_MS)
