"""How the generative rows' training was chosen: on a development period that ends before the evaluated one begins.

Models train on the rows' users' exposures before 28 April; what they rank is compared with what these users took to
from 28 to 30 April. Nothing from 1 May on is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evaluation import trying
from evaluation.baselines.training import CPU
from evaluation.files import write_json
from evaluation.table1.accuracy import accuracy
from evaluation.table1.generative import ranked_items, smaller, tiger, train_generative
from evaluation.table1.jobs import origin
from evaluation.table1.kept import Context
from evaluation.table1.origin import ROOT, source_digest
from evaluation.table1.protocol import FULL, SPLIT_MS
from evaluation.table1.rows import families
from evaluation.table1.trials import TRIALS, Trial
from evaluation.table1.world import Cases, KuaiRandOf, World, load
from onerec.model.presets import ModelConfig, preset
from stream.replay.log import Exposures

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "table1-choices"
DAY_MS = 86_400_000
DEVELOPMENT_SPLIT_MS = SPLIT_MS - 3 * DAY_MS
"""28 April 2022, 00:00 UTC."""
COUNTS = ("popularity", "cooccurrence")
SEED = 1


class Bench(NamedTuple):
    """What all trials share."""

    world: World
    config: ModelConfig
    device: torch.device


class KuaiRandBefore(KuaiRandOf):
    """The log as it is when the evaluated period begins."""

    def exposures(self) -> Exposures:
        """Those before 1 May."""
        found = super().exposures()
        return found.rows(np.flatnonzero(found.times_ms < SPLIT_MS))


def development(config: ModelConfig) -> World:
    """All of the rows' users that took to something from 28 to 30 April, as cases."""
    everyone = dataclasses.replace(FULL, cases=1_000_000)
    return with_something_to_find(load(everyone, config, KuaiRandBefore, DEVELOPMENT_SPLIT_MS))


def with_something_to_find(world: World) -> World:
    """The cases that accuracy is a mean over."""
    useful = np.flatnonzero([bool(truth) for truth in world.cases.truth])
    cases = Cases(world.cases.users[useful], [world.cases.truth[case] for case in useful.tolist()])
    return dataclasses.replace(world, cases=cases)


def choose(folder: Path = DEFAULT_FOLDER, device: torch.device = CPU, processes: int = 1) -> dict[str, Any]:
    """All trials, side by side in so many processes, and the counts; each is a file and not made again."""
    place = folder / source_digest()
    place.mkdir(parents=True, exist_ok=True)
    missing = [trial for trial in TRIALS if not _file(place, trial).is_file()]
    if missing or any(not (place / f"{name}.json").is_file() for name in COUNTS):
        config = preset("small")
        world = development(config)
        _counts(place, world, config)
        bench = Bench(world, config, device)
        for trial, own in trying.each(tried, missing, bench, device, processes):
            write_json(_file(place, trial), own)
            LOG.info("%s", json.dumps(own))
    return {
        "text": __doc__,
        "seed": SEED,
        "counts": [json.loads((place / f"{name}.json").read_text()) for name in COUNTS],
        "trials": [json.loads(_file(place, trial).read_text()) for trial in TRIALS],
    }


def tried(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Train a row and measure it on the cases."""
    world, config, device = bench
    started_s = time.monotonic()
    model = train_generative(world.rows, config_of(trial.row, config), trial.training, SEED, device)
    found = accuracy(ranked_items(model, world), world.cases.truth)
    seconds = round(time.monotonic() - started_s, 1)
    return {"row": trial.row, **dataclasses.asdict(trial.training), **found, "seconds": seconds} | origin(device)


def config_of(row: str, config: ModelConfig) -> ModelConfig:
    """Of a generative row: onerec-s, onerec-l, tiger-s or tiger-l."""
    sized = smaller(config) if row.endswith("-s") else config
    return tiger(sized) if row.startswith("tiger") else sized


def _counts(place: Path, world: World, config: ModelConfig) -> None:
    """What needs no choice, for comparison."""
    at = Context(world, dataclasses.replace(FULL, candidates=1), config, SEED, place)
    for family in families():
        if family.rows[0] in COUNTS:
            for row in family.make(at, frozenset(family.rows)):
                found = {
                    "row": row.name,
                    **accuracy(row.recommended.ranking, world.cases.truth),
                    "cases": len(world.cases),
                }
                write_json(place / f"{row.name}.json", found | origin(CPU))


def _file(place: Path, trial: Trial) -> Path:
    said = json.dumps(dataclasses.asdict(trial))
    return place / f"{trial.row}-{hashlib.sha256(said.encode()).hexdigest()[:8]}.json"
