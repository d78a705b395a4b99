"""Computes what is still missing: the scores of each seed are files, and a second run computes none again."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.streaming import reorder, study
from evaluation.streaming.learner import Candidates, seed_origin, seeded
from evaluation.streaming.protocol import DAILY, ONLINE, Form
from evaluation.streaming.stream import Timeline, load
from evaluation.streaming.study import Longs, Scores
from evaluation.table1.origin import ROOT, SOURCES, commit, source_digest
from onerec.errors import DependencyMissingError
from onerec.machine import machine
from onerec.model.presets import ModelConfig, preset
from onerec.settings import EvaluationSettings, JoinerSettings
from trainer.state import TrainState

LOG = logging.getLogger(__name__)
Column = np.ndarray[tuple[int, ...], np.dtype[Any]]
Rankings = tuple[dict[str, Longs], dict[str, Any]]
"""Leaves [V, TOP] by system, and what was chosen for them on the visits before the report."""
DEFAULT_FOLDER = ROOT / "runs" / "streaming"
COUNTS, STREAM, VISITS, CANDIDATES, REORDERED = "counts", "stream", "visits", "candidates", "reordered"
FIRST = "first"
"""The column of what is ranked first, as leaves."""
SO_FAR = "so-far"
"""The folder of what an unfinished run has come to, as of its last midnight."""
SEED_SOURCES = (
    *(path for path in SOURCES if not path.startswith(("evaluation/", "inference/"))),
    "evaluation/streaming/stream.py",
)
"""All that changes a seed's weights."""
OWN_SOURCES = (
    *(path for path in SOURCES if not path.startswith("evaluation/")),
    "evaluation/baselines/cooccurrence.py",
    "evaluation/baselines/popularity.py",
    "evaluation/baselines/running.py",
    "evaluation/ranking.py",
    "evaluation/rows.py",
    "evaluation/streaming/learner.py",
    "evaluation/streaming/reorder.py",
    "evaluation/streaming/stream.py",
    "evaluation/streaming/study.py",
    "stream/joiner/sessions.py",
    "stream/joiner/user.py",
    "stream/replay/visits.py",
    "trainer/admission.py",
    "trainer/frequency.py",
    "trainer/step.py",
)
"""All that changes a score. A change of any of them makes a folder of its own."""


def run(
    form: Form,
    seeds: Sequence[int],
    folder: Path = DEFAULT_FOLDER,
    *,
    config: ModelConfig | None = None,
    daily: bool = True,
) -> Path:
    """Fill the folder of this form and this code with the scores of every system and seed; the folder.

    Without `daily` the daily batch is left out, which is as long as all else.
    """
    place = folder_of(form, folder)
    work = _Work(form, config or preset("small"), place, folder)
    torch.set_num_threads(1)
    work.counts()
    for seed in seeds:
        work.stream(seed)
        work.reordered(seed)
    for seed in seeds if daily else ():
        work.daily(seed)
    return place


def folder_of(form: Form, folder: Path = DEFAULT_FOLDER) -> Path:
    """The folder of a form, made where it is not there: another state of the code has another one."""
    place = folder / f"{form.name}-{form.digest()}-{source_digest(sources=OWN_SOURCES)}"
    place.mkdir(parents=True, exist_ok=True)
    return place


def seed_file(form: Form, config: ModelConfig, seed: int, folder: Path = DEFAULT_FOLDER) -> Path:
    """Where a seed's weights are: they depend on less than the scores, and several forms share them."""
    code = source_digest(sources=SEED_SOURCES)
    return folder / f"seed-{config.name}-{form.users_of}-{form.samples}-{code}.{seed}.safetensors"


def so_far(form: Form, seeds: Sequence[int], folder: Path = DEFAULT_FOLDER) -> tuple[Path, int]:
    """A folder with what an unfinished run has come to, without its daily batch, and the time before which that is.

    Raises DependencyMissingError where no seed has come past the first day that is reported.
    """
    place = folder_of(form, folder)
    work = _Work(form, preset("small"), place, folder)
    reached_ms = min((work.copy_so_far(seed) for seed in seeds), default=0)
    if reached_ms <= form.from_ms:
        raise DependencyMissingError(
            f"No seed of {place} has come past the first day that is reported.", "Wait until one has."
        )
    return place / SO_FAR, reached_ms


def kept(place: Path, name: str, timeline: Callable[[], Timeline], make: Callable[[], Rankings]) -> dict[str, Column]:
    """`SYSTEM/hit`, `/ndcg` and `/first` of each visit for the rankings that `make` gives, from the folder where there.

    `origin` says where they come from, and what was chosen.
    """
    path = place / f"{name}.npz"
    if not path.is_file():
        started_s = time.monotonic()
        rankings, chosen = make()
        _save_scores(path, timeline(), rankings, chosen, time.monotonic() - started_s)
    with np.load(path) as file:
        return {column: file[column] for column in file.files}


def _save_scores(
    path: Path, timeline: Timeline, rankings: dict[str, Longs], chosen: dict[str, Any], seconds: float
) -> None:
    scores = {system: Scores.of(ranked, timeline.cases.truth) for system, ranked in rankings.items()}
    columns: dict[str, Column] = {f"{system}/hit": own.hits for system, own in scores.items()}
    columns |= {f"{system}/ndcg": own.ndcgs for system, own in scores.items()}
    columns |= {f"{system}/{FIRST}": ranked[:, 0] for system, ranked in rankings.items()}
    origin = {"commit": commit(), "machine": machine(), "seconds": round(seconds, 1), "chosen": chosen}
    _save(path, **columns, origin=np.array(json.dumps(origin)))
    LOG.info("%s: %s", path.stem, {system: round(float(own.hits.mean()), 4) for system, own in scores.items()})


def only_rankings(rankings: dict[str, Longs]) -> Rankings:
    """Where nothing was chosen."""
    return rankings, {}


class _Work:
    def __init__(self, form: Form, config: ModelConfig, place: Path, folder: Path) -> None:
        self._form, self._config, self._place, self._folder = form, config, place, folder
        self._timeline: Timeline | None = None

    @property
    def timeline(self) -> Timeline:
        """Loaded where something is missing."""
        if self._timeline is None:
            self._timeline = load(self._form, self._config, JoinerSettings())
            LOG.info("%d sessions, %d visits count", len(self._timeline.sessions), len(self._timeline.cases))
        return self._timeline

    def counts(self) -> None:
        """The running counts; the visits themselves, too."""
        if not (self._place / f"{VISITS}.npz").is_file():
            cases = self.timeline.cases
            _save(self._place / f"{VISITS}.npz", begin_ms=cases.begin_ms, earlier=cases.shown - cases.first)
        self._keep(COUNTS, lambda: only_rankings(study.counts(self.timeline, EvaluationSettings())))

    def stream(self, seed: int) -> None:
        """All that one online training serves; the candidates of `online`, too. Each midnight what there is so far."""

        def make() -> Rankings:
            form, started_s = self._form, time.monotonic()

            def on_day(reached_ms: int, found: dict[str, Candidates]) -> None:
                rankings = {name: own.ranked for name, own in found.items()}
                path = self._so_far(STREAM, seed)
                _save_scores(path, self.timeline, rankings, {}, time.monotonic() - started_s)
                _save(self._so_far(CANDIDATES, seed), **_columns(found[ONLINE]), reached_ms=np.array(reached_ms))

            found = study.online(self.timeline, self._seeded(seed), form.recipe, form.from_ms, on_day=on_day)
            _save(self._place / f"{CANDIDATES}.{seed}.npz", **_columns(found[ONLINE]))
            return only_rankings({name: own.ranked for name, own in found.items()})

        self._keep(f"{STREAM}.{seed}", make)

    def reordered(self, seed: int) -> None:
        """The candidates of `online` in another order."""
        path = self._place / f"{CANDIDATES}.{seed}.npz"
        self._keep(f"{REORDERED}.{seed}", lambda: self._reorder(path))

    def copy_so_far(self, seed: int) -> int:
        """Complete the folder of what there is so far; the time before which visits have been ranked, 0 for none."""
        path = self._so_far(CANDIDATES, seed)
        if not path.is_file():
            return 0
        with np.load(path) as file:
            reached_ms = int(file["reached_ms"])
        for name in (f"{VISITS}.npz", f"{COUNTS}.npz", f"seed.{seed}.json"):
            shutil.copy(self._place / name, path.parent / name)
        started_s = time.monotonic()
        rankings, chosen = self._reorder(path)
        target = self._so_far(REORDERED, seed)
        _save_scores(target, self.timeline, rankings, chosen, time.monotonic() - started_s)
        return reached_ms

    def daily(self, seed: int) -> None:
        """The daily batch."""

        def make() -> Rankings:
            state = self._seeded(seed, daily=True)
            return only_rankings(study.daily(self.timeline, state, self._form.recipe, self._form.from_ms))

        self._keep(f"{DAILY.replace(' ', '-')}.{seed}", make)

    def _so_far(self, name: str, seed: int) -> Path:
        folder = self._place / SO_FAR
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.{seed}.npz"

    def _reorder(self, candidates: Path) -> Rankings:
        with np.load(candidates) as file:
            found = Candidates(file["leaves"], file["log_probs"])
        return reorder.reordered(self.timeline, found, EvaluationSettings(), self._form.from_ms)

    def _seeded(self, seed: int, *, daily: bool = False) -> TrainState:
        file = seed_file(self._form, self._config, seed, self._folder)
        state = seeded(self._form, self._config, self.timeline, seed, file, daily=daily)
        (self._place / f"seed.{seed}.json").write_text(json.dumps(seed_origin(file), indent=2) + "\n")
        return state

    def _keep(self, name: str, make: Callable[[], Rankings]) -> None:
        kept(self._place, name, lambda: self.timeline, make)


def _columns(candidates: Candidates) -> dict[str, Column]:
    return {"leaves": candidates.leaves, "log_probs": candidates.log_probs}


def _save(path: Path, **columns: Column) -> None:
    unfinished = path.with_suffix(".part.npz")
    np.savez_compressed(unfinished, **columns)  # type: ignore[arg-type]
    unfinished.replace(path)
