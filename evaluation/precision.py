"""What is recommended when other kernels decode: the same model and cases as Table 1's larger OneRec, decoded by each.

Against torch in float32: Recall@10 and NDCG@10 of the ten most probable first items, as in Table 1; how many of the ten
are the same, in how many cases the first is, and how far log-probabilities of sessions that both find are apart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.pages import grid, put
from evaluation.table1.accuracy import accuracy
from evaluation.table1.generative import MIN_BEAM, seen
from evaluation.table1.ids import with_kept_ids
from evaluation.table1.kept import Context, onerec_of
from evaluation.table1.origin import commit
from evaluation.table1.protocol import FULL, TOP, Form
from evaluation.table1.run import folder_of
from evaluation.table1.world import World, load
from inference.engine.native import binding
from inference.engine.native.check import TORCH, usable
from inference.engine.search import Engine
from onerec.features import history_batch
from onerec.machine import machine
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset

LOG = logging.getLogger(__name__)
CHUNK = 32
REFERENCE = "torch, float32"
BEGIN, END = "<!-- precision: written by `python -m evaluation precision --paper` -->\n", "<!-- /precision -->\n"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one engine finds for all C cases: n sessions of m items, best first."""

    sessions: np.ndarray[Any, np.dtype[np.int64]]  # [C, n, m]
    log_probs: np.ndarray[Any, np.dtype[np.float32]]  # [C, n]
    ranking: np.ndarray[Any, np.dtype[np.int64]]  # [C, TOP] first items


def compare(seeds: Sequence[int], form: Form = FULL, place: Path | None = None) -> dict[str, Any]:
    """Rows by seed and kernels. Models are those of Table 1's folder and are trained where it has none."""
    config, place = preset("small"), place or folder_of(form)
    place.mkdir(parents=True, exist_ok=True)
    world = with_kept_ids(load(form, config), place, config)
    rows = compared(world, form, config, seeds, place)
    origin = {"commit": commit(), "machine": machine()}
    return {"text": __doc__, "form": form.name, "cases": len(world.cases), "seeds": list(seeds), "rows": rows} | origin


def compared(world: World, form: Form, config: ModelConfig, seeds: Sequence[int], place: Path) -> list[dict[str, Any]]:
    """A row for each seed and each way to decode, the reference first."""
    rows = []
    for seed in seeds:
        model = onerec_of(Context(world, form, config, seed, place))
        found = {name: decoded(engine, world) for name, engine in engines(model).items()}
        for name, own in found.items():
            row = (
                {"seed": seed, "kernels": name}
                | accuracy(own.ranking, world.cases.truth)
                | apart(own, found[REFERENCE])
            )
            LOG.info("%s", row)
            rows.append(row)
    return rows


def engines(model: OneRec) -> dict[str, Engine]:
    """By name: the reference first, then every kind of kernels that this processor can run."""
    found = {REFERENCE: Engine(model, kernels=TORCH, dtype=torch.float32)}
    for kernels in usable(model.config, kinds=binding.kinds()):
        found[kernels.kind] = Engine(model, kernels=kernels.kind)
    return found


def decoded(engine: Engine, world: World) -> Decoded:
    """All cases by one engine."""
    started_s, parts = time.monotonic(), list[tuple[torch.Tensor, ...]]()
    for first in range(0, len(world.cases), CHUNK):
        rows = world.cases.users[first : first + CHUNK].tolist()
        batch = history_batch([world.rows.history(row) for row in rows], world.rows.catalogue, engine.config)
        found = engine.generate(batch, world.rows.catalogue, beam_width=MIN_BEAM, exclude=seen(world, rows))
        parts.append((found.sessions, found.log_probs, found.first_leaves[:, :TOP]))
    LOG.info("%s decoded %d cases in %.1f s", engine.kernels, len(world.cases), time.monotonic() - started_s)
    return Decoded(*(torch.cat(columns).numpy() for columns in zip(*parts, strict=True)))


def apart(own: Decoded, reference: Decoded) -> dict[str, float]:
    """How far apart two ways to decode are."""
    common = [len(np.intersect1d(one, other)) for one, other in zip(own.ranking, reference.ranking, strict=True)]
    differences = [
        abs(known[session] - log_prob)
        for sessions, log_probs, known in zip(own.sessions, own.log_probs, _by_session(reference), strict=True)
        for session, log_prob in zip(map(tuple, sessions.tolist()), log_probs.tolist(), strict=True)
        if session in known and np.isfinite(log_prob)
    ]
    return {
        "same_of_ten": float(np.mean(common)) / TOP,
        "same_first": float((own.ranking[:, 0] == reference.ranking[:, 0]).mean()),
        "log_prob_apart": float(np.mean(differences)),
    }


def _by_session(found: Decoded) -> list[dict[tuple[int, ...], float]]:
    return [
        dict(zip(map(tuple, sessions.tolist()), log_probs.tolist(), strict=True))
        for sessions, log_probs in zip(found.sessions, found.log_probs, strict=True)
    ]


def table(result: dict[str, Any]) -> str:
    """Markdown: means over the seeds."""
    names = ("recall_at_10", "ndcg_at_10", "same_of_ten", "same_first", "log_prob_apart")
    head = ["kernels", "Recall@10", "NDCG@10", "same of the ten", "same first item", "log-probabilities apart"]
    rows = []
    for kernels in dict.fromkeys(row["kernels"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["kernels"] == kernels]
        rows.append([kernels, *(f"{np.mean([row[name] for row in own]):.4f}" for name in names)])
    return grid(head, rows)


def write_page(page: Path, result: dict[str, Any]) -> None:
    """Put the table between its marks."""
    seeds, where = ", ".join(map(str, result["seeds"])), result["machine"]
    section = (
        f"{BEGIN}`python -m evaluation precision`: {result['cases']:,} cases, beam {MIN_BEAM}, means of seeds {seeds}, "
        f"on {where['cpu']}.\n\n{table(result)}{END}"
    )
    put(page, section, BEGIN, END)
