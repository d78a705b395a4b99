"""The columns of a row, from what it recommends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.ranking import ndcg, recall
from evaluation.table1.candidates import Longs
from evaluation.table1.judge import judged
from evaluation.table1.protocol import SESSION_ITEMS, TOP
from evaluation.table1.rounds import by_round
from evaluation.table1.rows import Row
from evaluation.table1.world import World
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel

VISITS = "visits_"
"""Before the names of the columns that are means over visits."""


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


def accuracy(ranking: Longs, truths: Sequence[set[int]]) -> dict[str, float]:
    """Recall@10 and NDCG@10 of rankings [C, k] over the cases that have something to find."""
    pairs = [(own, truth) for own, truth in zip(ranking.tolist(), truths, strict=True) if truth]
    return {
        "recall_at_10": float(np.mean([recall(own, truth, TOP) for own, truth in pairs])),
        "ndcg_at_10": float(np.mean([ndcg(own, truth, TOP) for own, truth in pairs])),
    }
