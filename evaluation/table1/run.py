"""Trains and judges what is still missing: every row of every seed is a file, and a second run computes none again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.ranking import ndcg, recall
from evaluation.table1.candidates import Longs
from evaluation.table1.judge import judged
from evaluation.table1.kept import Context, judge_of
from evaluation.table1.origin import ROOT, commit, source_digest
from evaluation.table1.protocol import SESSION_ITEMS, TOP, Form
from evaluation.table1.quality import quality
from evaluation.table1.rounds import by_round
from evaluation.table1.rows import Family, Row, families
from evaluation.table1.world import World, load
from onerec.errors import SettingsError
from onerec.machine import machine
from onerec.model.presets import ModelConfig, preset
from onerec.model.reward import RewardModel

LOG = logging.getLogger(__name__)
JUDGE_FILE = "judge.json"
DEFAULT_FOLDER = ROOT / "runs" / "table1"


def run(
    form: Form,
    seeds: Sequence[int],
    folder: Path = DEFAULT_FOLDER,
    *,
    only: Sequence[str] = (),
    config: ModelConfig | None = None,
    load_world: Callable[[Form, ModelConfig], World] = load,
) -> Path:
    """Fill the folder of this form and this code with a file for each row and seed, and one of the judge; the folder.

    `only` names rows; all by default. Raises SettingsError for a row that does not exist.
    """
    own = config or preset("small")
    place = folder_of(form, folder)
    place.mkdir(parents=True, exist_ok=True)
    chosen = _chosen(only)
    missing = [(seed, family) for seed in seeds for family in families() if _missing(place, family, chosen, seed)]
    if not missing:
        LOG.info("nothing is missing in %s", place)
        return place
    torch.set_num_threads(1)
    world = load_world(form, own)
    LOG.info("%d cases, %d and %d users", len(world.cases), len(world.rows.past), len(world.judge.past))
    judge = judge_of(place, world, form, own)
    if not (place / JUDGE_FILE).is_file():
        _write(place / JUDGE_FILE, quality(judge, world, own) | _origin())
    for seed, family in missing:
        context = Context(world, form, own, seed, place)
        started_s = time.monotonic()
        for row in family.make(context, _missing(place, family, chosen, seed)):
            figures = measured(row, judge, world, own) | {"seconds": round(time.monotonic() - started_s, 1)}
            _write(place / f"{row.name}.{seed}.json", figures | {"row": row.name, "seed": seed, **_origin()})
            LOG.info("%s, seed %d: %s", row.name, seed, json.dumps({k: figures[k] for k in ("swt", "recall_at_10")}))
            started_s = time.monotonic()
    return place


def folder_of(form: Form, folder: Path = DEFAULT_FOLDER) -> Path:
    """Where the rows of a form are: another form, and another state of the code, have another folder."""
    return folder / f"{form.name}-{form.digest()}-{source_digest()}"


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
    columns |= accuracy(ranking, world)
    counted: dict[str, Any] = {
        "parameters": row.parameters,
        "cases": len(sessions),
        "cases_with_truth": sum(map(bool, world.cases.truth)),
        "distinct_items": len(np.unique(sessions[:, 0])),
        "sessions_missing": int((sessions < 0).any(2).sum()),
    }
    if row.rounds:
        counted["rounds"] = by_round(row.rounds, judge, world, config)
    return columns | counted


def accuracy(ranking: Longs, world: World) -> dict[str, float]:
    """Recall@10 and NDCG@10 of rankings [C, k] over the cases that have something to find."""
    pairs = [(own, truth) for own, truth in zip(ranking.tolist(), world.cases.truth, strict=True) if truth]
    return {
        "recall_at_10": float(np.mean([recall(own, truth, TOP) for own, truth in pairs])),
        "ndcg_at_10": float(np.mean([ndcg(own, truth, TOP) for own, truth in pairs])),
    }


def _chosen(only: Sequence[str]) -> frozenset[str]:
    known = [row for family in families() for row in family.rows]
    if unknown := sorted(set(only) - set(known)):
        raise SettingsError(f"There is no row {', '.join(unknown)}.", f"Rows are {', '.join(known)}.")
    return frozenset(only or known)


def _missing(place: Path, family: Family, chosen: frozenset[str], seed: int) -> frozenset[str]:
    return frozenset(row for row in family.rows if row in chosen and not (place / f"{row}.{seed}.json").is_file())


def _write(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


def _origin() -> dict[str, Any]:
    return {"commit": commit(), "machine": machine()}
