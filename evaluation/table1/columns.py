"""The columns of a row, from what it recommends."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.table1.accuracy import VISITS, accuracy
from evaluation.table1.judge import judged
from evaluation.table1.protocol import SESSION_ITEMS
from evaluation.table1.rounds import by_round
from evaluation.table1.rows import Row
from evaluation.table1.world import World
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel


def measured(row: Row, judge: RewardModel, world: World, config: ModelConfig) -> dict[str, Any]:
    """The columns of a row."""
    sessions, ranking = row.recommended
    assert sessions.shape[2] == SESSION_ITEMS
    columns: dict[str, Any] = {}
    for name, values in judged(judge, world, config, sessions).items():
        whole = values[~np.isnan(values).all(1)]
        columns[name] = {
            "mean": float(np.nanmean(whole, axis=1).mean()),
            "max": float(np.nanmax(whole, axis=1).mean()),
        }
    columns |= accuracy(ranking, world.cases.truth)
    at_visits = accuracy(row.at_visits, world.visits.truth)
    columns |= {f"{VISITS}{name}": value for name, value in at_visits.items()}
    counted: dict[str, Any] = {
        "parameters": row.parameters,
        "cases": len(sessions),
        "cases_with_truth": sum(map(bool, world.cases.truth)),
        "visits": len(world.visits),
        "distinct_items": len(np.unique(sessions[:, 0])),
        "sessions_missing": int((sessions < 0).any(2).sum()),
    }
    if row.rounds:
        counted["rounds"] = by_round(row.rounds, judge, world, config)
    return columns | counted
