"""The work of a table in pieces: rows that are made together, and the models that they share."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from evaluation.files import write_json
from evaluation.table1.accuracy import VISITS
from evaluation.table1.columns import measured
from evaluation.table1.kept import (
    JUDGE_WEIGHTS,
    Context,
    judge_of,
    onerec_of,
    onerec_weights,
    reward_of,
    reward_weights,
)
from evaluation.table1.origin import commit
from evaluation.table1.preference import RECIPES
from evaluation.table1.protocol import Form
from evaluation.table1.quality import quality
from evaluation.table1.rows import families
from evaluation.table1.world import World
from onerec.machine import machine
from onerec.model.presets import ModelConfig

LOG = logging.getLogger(__name__)
JUDGE_FILE = "judge.json"
TOGETHER = 3
"""Preference rows that a process makes one after the other, from pairs that it mines once."""
LARGE: Literal["onerec-l"] = "onerec-l"
Model = Literal["judge", "reward", "onerec-l"]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all jobs of a run share."""

    world: World
    form: Form
    config: ModelConfig
    place: Path
    device: torch.device


@dataclass(frozen=True, slots=True)
class Job:
    """Rows of one seed, or one of the models that rows need; the judge has no seed."""

    seed: int
    rows: frozenset[str] = frozenset()
    model: Model | None = None

    @property
    def name(self) -> str:
        """For the log."""
        what = self.model or ", ".join(sorted(self.rows))
        return what if self.model == "judge" else f"{what}, seed {self.seed}"

    @property
    def leaves(self) -> str | None:
        """The file of the model."""
        files = {"judge": JUDGE_WEIGHTS, "reward": reward_weights(self.seed), LARGE: onerec_weights(self.seed)}
        return files[self.model] if self.model else None

    @property
    def needs(self) -> frozenset[str]:
        """Files of models; a job makes for itself what is not there."""
        own = self.rows & {LARGE, *(f"{LARGE}-{name}" for name in RECIPES)}
        models = [onerec_weights(self.seed)] if own else []
        return frozenset([*models, *([reward_weights(self.seed)] if own - {LARGE} else [])])


def planned(place: Path, seeds: Sequence[int], chosen: frozenset[str]) -> list[Job]:
    """What is missing in a folder, one seed after the other: the judge, then the rows by family."""

    def missing(rows: Sequence[str], seed: int) -> frozenset[str]:
        return frozenset(row for row in rows if row in chosen and not _is_made(_row_file(place, row, seed)))

    found = [Job(seed, missing(family.rows, seed)) for seed in seeds for family in families()]
    jobs = [job for job in found if job.rows]
    judged = (place / JUDGE_FILE).is_file() and (place / JUDGE_WEIGHTS).is_file()
    return jobs if judged or not jobs else [Job(0, model="judge"), *jobs]


def apart(jobs: Iterable[Job], place: Path) -> list[Job]:
    """The same work in smaller pieces, those first that others wait for, then the preference rows.

    The rest follows in the opposite order of the table, which is about the longest first.
    """
    models, preferred, others = list[Job](), list[Job](), list[Job]()
    for job in jobs:
        aligned = [f"{LARGE}-{name}" for name in RECIPES if f"{LARGE}-{name}" in job.rows]
        if job.model:
            models.append(job)
        elif job.needs:
            preferred += [Job(job.seed, frozenset(some)) for some in _groups(aligned)]
            preferred += [Job(job.seed, frozenset([LARGE]))] if LARGE in job.rows else []
            models += [Job(job.seed, model=LARGE), *([Job(job.seed, model="reward")] if aligned else [])]
        else:
            others.append(job)
    wanted = [job for job in models if job.model == "judge" or not (place / str(job.leaves)).is_file()]
    order: dict[Model | None, int] = {"judge": 0, LARGE: 1, "reward": 2}
    return [*sorted(wanted, key=lambda job: order[job.model]), *preferred, *_longest_first(others)]


def _groups(rows: Sequence[str]) -> list[list[str]]:
    """Iterative recipes alone, the others a few together."""
    alone = [row for row in rows if RECIPES[row.removeprefix(f"{LARGE}-")].iterative]
    shared = [row for row in rows if row not in alone]
    return [[row] for row in alone] + [shared[at : at + TOGETHER] for at in range(0, len(shared), TOGETHER)]


def _longest_first(jobs: Sequence[Job]) -> list[Job]:
    place = {row: number for number, family in enumerate(families()) for row in family.rows}
    return sorted(jobs, key=lambda job: -place[min(job.rows)])


def do(job: Job, bench: Bench) -> None:
    """Train and measure: files in the bench's folder."""
    world, form, config, place = bench.world, bench.form, bench.config, bench.place
    context = Context(world, form, config, job.seed, place, bench.device)
    if job.model == "reward":
        reward_of(context)
        return
    if job.model == LARGE:
        onerec_of(context)
        return
    if job.model == "judge":
        judge = judge_of(place, world, form, config, bench.device)
        write_json(place / JUDGE_FILE, quality(judge, world, config) | origin(bench.device))
        return
    started_s = time.monotonic()
    for family in families():
        for row in family.make(context, job.rows) if job.rows & set(family.rows) else ():
            seconds = round(time.monotonic() - started_s, 1)
            judge = judge_of(place, world, form, config, bench.device)
            figures = measured(row, judge, world, config) | {"seconds": seconds}
            write_json(
                _row_file(place, row.name, job.seed),
                figures | {"row": row.name, "seed": job.seed} | origin(bench.device),
            )
            told = json.dumps({key: figures[key] for key in ("swt", "recall_at_10")})
            LOG.info("%s, seed %d, %.0f s: %s", row.name, job.seed, seconds, told)
            started_s = time.monotonic()


def _is_made(path: Path) -> bool:
    """Whether a row's file is there, with the columns by visit: rows that were published before have none."""
    return path.is_file() and f"{VISITS}recall_at_10" in json.loads(path.read_text())


def _row_file(place: Path, row: str, seed: int) -> Path:
    return place / f"{row}.{seed}.json"


def origin(device: torch.device) -> dict[str, Any]:
    """Where a result comes from: commit and machine."""
    gpu = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {"commit": commit(), "machine": machine() | gpu}
