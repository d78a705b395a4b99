"""Trains and judges what is still missing: every row of every seed is a file, and a second run computes none again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from evaluation.baselines.training import CPU
from evaluation.devices import use
from evaluation.table1 import published
from evaluation.table1.ids import with_kept_ids
from evaluation.table1.jobs import Bench, planned
from evaluation.table1.origin import ROOT, source_digest
from evaluation.table1.parallel import one_by_one, side_by_side
from evaluation.table1.protocol import Form
from evaluation.table1.rows import families
from evaluation.table1.world import World, load
from onerec.errors import SettingsError
from onerec.model.presets import ModelConfig, preset

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "table1"


def run(
    form: Form,
    seeds: Sequence[int],
    folder: Path = DEFAULT_FOLDER,
    *,
    only: Sequence[str] = (),
    config: ModelConfig | None = None,
    load_world: Callable[[Form, ModelConfig], World] = load,
    device: torch.device = CPU,
    processes: int = 1,
    minutes: float | None = None,
    onto: Path | None = None,
) -> Path:
    """Fill the folder of this form and this code with a file for each row and seed, and one of the judge; the folder.

    `only` names rows; all by default. `processes` train side by side. After `minutes` what is unfinished is left to a
    later run, on this device or another: finished rows and models are kept. With `onto` the judge is the published one
    of that folder, and its rows count as made, whatever code made them. Raises SettingsError for a row that does not
    exist and CheckFailedError for rows that could not be made.
    """
    started_s = time.monotonic()
    own = config or preset("small")
    place = folder_of(form, folder, onto=onto is not None)
    place.mkdir(parents=True, exist_ok=True)
    if onto is not None:
        published.take_over(onto, place)
    jobs = planned(place, seeds, _chosen(only))
    if not jobs:
        LOG.info("nothing is missing in %s", place)
        return place
    use(device)
    world = with_kept_ids(load_world(form, own), place, own)
    LOG.info("%d cases, %d and %d users", len(world.cases), len(world.rows.past), len(world.judge.past))
    bench = Bench(world, form, own, place, device)
    end_s = None if minutes is None else started_s + 60.0 * minutes
    if processes > 1:
        side_by_side(jobs, bench, processes, end_s)
    else:
        one_by_one(jobs, bench, end_s)
    return place


def folder_of(form: Form, folder: Path = DEFAULT_FOLDER, *, onto: bool = False) -> Path:
    """Where the rows of a form are: another form, and another state of the code, have another folder.

    Runs `onto` published rows have one for themselves.
    """
    return folder / f"{form.name}-{form.digest()}-{'onto-' if onto else ''}{source_digest()}"


def _chosen(only: Sequence[str]) -> frozenset[str]:
    known = [row for family in families() for row in family.rows]
    if unknown := sorted(set(only) - set(known)):
        raise SettingsError(f"There is no row {', '.join(unknown)}.", f"Rows are {', '.join(known)}.")
    return frozenset(only or known)
