"""The trainer's own seed and step over a log in event time, and a server that ranks with what it has learned."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from evaluation.streaming.protocol import BEAM, TOP, Form, Recipe
from evaluation.streaming.stream import Closed, Timeline
from evaluation.table1.origin import commit
from inference.engine.index import IndexCache
from inference.engine.search import Engine
from onerec.errors import CheckFailedError
from onerec.features import history_batch
from onerec.kafka.reader import Received
from onerec.machine import machine
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.settings import SeedSettings, TrainerSettings
from schemas.topics import SESSIONS
from trainer.admission import StepInput
from trainer.budget import SampleCount
from trainer.samples import cut
from trainer.seed import train_seed
from trainer.state import SeenWindow, TrainState
from trainer.step import apply_step
from trainer.update import NOTHING_TO_LEARN

CHUNK = 64
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The most probable items of visits [V, BEAM], best first: leaves, -1 for none, and log-probabilities, -inf."""

    leaves: Longs
    log_probs: Floats

    @classmethod
    def of(cls, visits: int) -> Self:
        """None yet."""
        return cls(np.full((visits, BEAM), -1, np.int64), np.full((visits, BEAM), -np.inf, np.float32))

    @property
    def ranked(self) -> Longs:
        """[V, TOP]."""
        return self.leaves[:, :TOP]

    def put(self, rows: Longs, other: Candidates) -> None:
        """Those of some visits."""
        self.leaves[rows], self.log_probs[rows] = other.leaves, other.log_probs

    def at(self, rows: Any) -> Candidates:
        """Those of some visits."""
        return Candidates(self.leaves[rows], self.log_probs[rows])


@dataclass(frozen=True, slots=True)
class Batch:
    """The sessions of a step, and when they are learned from."""

    time_ms: int
    sessions: Sequence[Closed]


def batches(sessions: Sequence[Closed], recipe: Recipe) -> Iterator[Batch]:
    """As the trainer takes them: a full batch at once, else what is there when the oldest has waited."""
    wait_ms = recipe.wait_s * 1000
    first = 0
    for at, closed in enumerate(sessions):
        due_ms = sessions[first].time_ms + wait_ms
        if first < at and closed.time_ms > due_ms:
            yield Batch(due_ms, sessions[first:at])
            first = at
        if at - first + 1 == recipe.batch:
            yield Batch(closed.time_ms, sessions[first : at + 1])
            first = at + 1
    if first < len(sessions):
        yield Batch(sessions[first].time_ms + wait_ms, sessions[first:])


def learn(state: TrainState, timeline: Timeline, sessions: Sequence[Closed]) -> None:
    """One step of the trainer. Raises CheckFailedError where losses or gradients are not finite."""
    records = tuple(
        Received(SESSIONS, 0, offset, closed.time_ms, None, closed.session) for offset, closed in enumerate(sessions)
    )
    result = apply_step(state, StepInput((), records, (), timeline.catalogue))
    if result.refused not in (None, NOTHING_TO_LEARN):
        raise CheckFailedError(f"Step {result.step} was refused: {result.refused}.", "Lower the learning rate.")


def learn_day(state: TrainState, timeline: Timeline, sessions: Sequence[Closed], recipe: Recipe, day: int) -> None:
    """A day's sessions, shuffled, in passes: what a daily job does."""
    for epoch in range(recipe.batch_epochs):
        state.seen_sessions = SeenWindow(state.settings.pair_window)
        order = np.random.default_rng([state.settings.random_seed, day, epoch]).permutation(len(sessions))
        for first in range(0, len(order), recipe.batch):
            learn(state, timeline, [sessions[at] for at in order[first : first + recipe.batch].tolist()])


def settings_of(form: Form, seed: int, *, daily: bool = False) -> TrainerSettings:
    """The trainer's settings of a form."""
    recipe = form.recipe
    return TrainerSettings(
        random_seed=seed,
        learning_rate=recipe.batch_learning_rate if daily else recipe.learning_rate,
        frequency_power=recipe.frequency_power,
        seed=SeedSettings(threads=1, samples=form.samples),
    )


def seeded(form: Form, config: ModelConfig, timeline: Timeline, seed: int, file: Path, *, daily: bool) -> TrainState:
    """A trainer that has its seed and nothing of the stream; the weights are kept in `file`."""
    state = TrainState.new(config, settings_of(form, seed, daily=daily))
    if not file.is_file():
        started_s = time.monotonic()
        samples = cut(timeline.past(), timeline.catalogue, config)
        train_seed(state, samples, timeline.catalogue, SampleCount(form.samples), on_step=lambda _: None)
        origin = {"commit": commit(), "machine": machine(), "seconds": round(time.monotonic() - started_s, 1)}
        unfinished = file.with_suffix(".part")
        weights = {name: tensor.contiguous() for name, tensor in state.weights().items()}
        save_file(weights, unfinished, metadata={"origin": json.dumps(origin)})
        unfinished.replace(file)
    state.load_models(load_file(file))
    state.restart_optimizers()
    return state


def seed_origin(file: Path) -> dict[str, Any]:
    """Where a seed's weights come from, as their file says."""
    with safe_open(file, "pt") as weights:
        found: dict[str, Any] = json.loads((weights.metadata() or {}).get("origin", "{}"))
    return found


class Server:
    """Ranks for visits with the weights of one version."""

    def __init__(self, timeline: Timeline, config: ModelConfig, indexes: IndexCache) -> None:
        self.version = -1
        self.holders = 0
        """How many arms serve with it."""
        self._timeline = timeline
        self._model = OneRec(config).eval()
        self._indexes = indexes
        self._engine: Engine | None = None

    def serve(self, model: OneRec, dtype: torch.dtype, version: int) -> None:
        """Take over the weights of `model`, rounded as a version's are."""
        weights = model.state_dict()
        rounded = {name: w.to(dtype).to(w.dtype) if w.is_floating_point() else w for name, w in weights.items()}
        self._model.load_state_dict(rounded)
        self._engine = None
        self.version = version

    def rank(self, cases: Longs) -> Candidates:
        """The most probable items for these visits."""
        found = Candidates.of(len(cases))
        if not len(cases):
            return found
        if self._engine is None:
            self._engine = Engine(self._model, indexes=self._indexes)
        config, timeline = self._engine.config, self._timeline
        for begin in range(0, len(cases), CHUNK):
            chunk = cases[begin : begin + CHUNK].tolist()
            histories = [timeline.history(case, config.history_items) for case in chunk]
            generated = self._engine.rank(
                history_batch(histories, timeline.catalogue, config),
                timeline.catalogue,
                beam_width=BEAM,
                exclude=[torch.from_numpy(timeline.seen(case)) for case in chunk],
            )
            width = generated.first_leaves.shape[1]
            found.leaves[begin : begin + len(chunk), :width] = generated.first_leaves.numpy()
            found.log_probs[begin : begin + len(chunk), :width] = generated.first_log_probs.numpy()
        return found


class Servers:
    """Servers of a training's weights: one for all arms that take over the same version."""

    def __init__(self, timeline: Timeline, state: TrainState) -> None:
        self._timeline, self._state, self._indexes = timeline, state, IndexCache()
        self._dtype = getattr(torch, state.settings.publish_dtype)
        self._all: list[Server] = []

    def exchange(self, before: Server | None) -> Server:
        """The server of the weights as they are now; `before` is given back."""
        if before is not None:
            before.holders -= 1
        version = self._state.step
        found = next((one for one in self._all if one.holders and one.version == version), None)
        if found is None:
            found = next((one for one in self._all if not one.holders), None)
            if found is None:
                found = Server(self._timeline, self._state.config, self._indexes)
                self._all.append(found)
            found.serve(self._state.onerec, self._dtype, version)
        found.holders += 1
        return found
