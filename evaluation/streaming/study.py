"""Walks through event time: each system ranks every visit with what it had learned when the visit began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.baselines.running import Baselines
from evaluation.ranking import hit, ndcg
from evaluation.streaming.learner import Server, batches, learn, learn_day
from evaluation.streaming.protocol import (
    BEGIN_MS,
    DAILY,
    DAY_MS,
    FROZEN,
    INTERVALS_MS,
    ONLINE,
    TOP,
    Recipe,
)
from evaluation.streaming.stream import POSITIVE, Timeline
from evaluation.table1.world import with_long_views
from inference.engine.index import IndexCache
from onerec.settings import EvaluationSettings
from trainer.state import TrainState

Longs = NDArray[np.int64]
NEVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class Scores:
    """HitRate@10 and NDCG@10 of each visit, float32 [V]."""

    hits: NDArray[np.float32]
    ndcgs: NDArray[np.float32]

    @classmethod
    def of(cls, ranked: Longs, truth: list[set[int]]) -> Self:
        """Of leaves [V, TOP], best first."""
        pairs = [(hit(row, own), ndcg(row, own)) for row, own in zip(ranked.tolist(), truth, strict=True)]
        columns = np.array(pairs, np.float32).reshape(-1, 2)
        return cls(columns[:, 0], columns[:, 1])


class _Arm:
    """A system that serves the training's weights as of the newest multiple of its interval."""

    def __init__(
        self, timeline: Timeline, state: TrainState, interval_ms: int, indexes: IndexCache, finer: _Arm | None = None
    ) -> None:
        """`finer` exchanges more often, and ranks first: where it served the same version, its rankings are taken."""
        self.ranked: Longs = np.full((len(timeline.cases), TOP), -1, np.int64)
        self.versions: Longs = np.full(len(timeline.cases), -1, np.int64)
        self._begin_ms = timeline.cases.begin_ms
        self._interval_ms = interval_ms
        self._state = state
        self._finer = finer
        self._dtype = getattr(torch, state.settings.publish_dtype)
        self._server = Server(timeline, state.config, indexes)
        self._next = 0
        self._learned_ms = 0
        self._serve()

    def before_step(self, time_ms: int) -> None:
        """The state, unchanged since `after_step`, changes at `time_ms`: a multiple in between exchanges weights."""
        boundary_ms = -(-self._learned_ms // self._interval_ms) * self._interval_ms
        if boundary_ms < time_ms:
            self.rank_before(boundary_ms)
            self._serve()

    def after_step(self, time_ms: int) -> None:
        """The state has learned what there was until `time_ms`."""
        self._learned_ms = time_ms

    def rank_before(self, time_ms: int) -> None:
        """Rank for the visits that begin before."""
        end = int(np.searchsorted(self._begin_ms, time_ms, side="left"))
        cases = np.arange(self._next, end)
        if not len(cases):
            return
        self._next = end
        self.versions[cases] = self._version
        if self._finer is not None:
            known = self._finer.versions[cases] == self._version
            self.ranked[cases[known]] = self._finer.ranked[cases[known]]
            cases = cases[~known]
        self.ranked[cases] = self._server.rank(cases)

    def _serve(self) -> None:
        self._version = self._state.step
        self._server.serve(self._state.onerec, self._dtype)


def online(timeline: Timeline, state: TrainState, recipe: Recipe, only: Iterable[str] = ()) -> dict[str, Longs]:
    """Rankings [V, TOP] of `frozen` and of each synchronisation interval, from one training; `only` some of them."""
    intervals = {FROZEN: NEVER_MS, **INTERVALS_MS}
    wanted = set(only) or set(intervals)
    indexes = IndexCache()
    arms: dict[str, _Arm] = {}
    for name, every_ms in intervals.items():
        if name in wanted:
            arms[name] = _Arm(timeline, state, every_ms, indexes, arms.get(ONLINE))
    for batch in batches(timeline.sessions, recipe):
        for arm in arms.values():
            arm.before_step(batch.time_ms)
        learn(state, timeline, batch.sessions)
        for arm in arms.values():
            arm.after_step(batch.time_ms)
    for arm in arms.values():
        arm.before_step(NEVER_MS)
        arm.rank_before(NEVER_MS)
    return {name: arm.ranked for name, arm in arms.items()}


def daily(timeline: Timeline, state: TrainState, recipe: Recipe) -> dict[str, Longs]:
    """Rankings [V, TOP] of the model that is trained once a day."""
    arm = _Arm(timeline, state, DAY_MS, IndexCache())
    times = np.array([closed.time_ms for closed in timeline.sessions])
    last_day = int((timeline.cases.begin_ms.max() - BEGIN_MS) // DAY_MS)
    for day in range(1, last_day + 1):
        midnight_ms = BEGIN_MS + day * DAY_MS
        arm.before_step(midnight_ms)
        arm.rank_before(midnight_ms)
        first, last = np.searchsorted(times, [midnight_ms - DAY_MS, midnight_ms]).tolist()
        first = first if day > 1 else 0  # the app's days begin eight hours before those of UTC
        learn_day(state, timeline, timeline.sessions[first:last], recipe, day)
        arm.after_step(midnight_ms)
    arm.before_step(NEVER_MS)
    arm.rank_before(NEVER_MS)
    return {DAILY: arm.ranked}


def counts(timeline: Timeline, settings: EvaluationSettings) -> dict[str, Longs]:
    """Rankings [V, TOP] of the running counts, as leaves."""
    baselines, own = Baselines(settings, len(timeline.catalogue)), timeline.histories
    for user_id, begin, end in zip(
        own.user_ids.tolist(), own.starts[:-1].tolist(), own.starts[1:].tolist(), strict=True
    ):
        baselines.add_history(user_id, own.items[begin:end].tolist())
    exposures = timeline.exposures
    positive = (with_long_views(exposures) & POSITIVE) > 0
    found: dict[str, Longs] = {}
    case = 0
    columns = (exposures.user_ids, exposures.item_ids, exposures.times_ms, positive)
    for user_id, item_id, time_ms, liked in zip(*(column.tolist() for column in columns), strict=True):
        while case < len(timeline.cases) and timeline.cases.begin_ms[case] <= time_ms:
            for name, items in baselines.ranked(int(timeline.cases.user_ids[case])).items():
                ranked = found.setdefault(name, np.full((len(timeline.cases), TOP), -1, np.int64))
                ranked[case, : len(items)] = timeline.catalogue.leaves(np.array(items, np.int64))
            case += 1
        baselines.learn(user_id, item_id, time_ms, positive=liked)
    return found
