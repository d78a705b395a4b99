"""Walks through event time: each system ranks every visit with what it had learned when the visit began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.running import COMBINED, COOCCURRENCE, SYSTEMS, Baselines, power_name
from evaluation.ranking import hit, ndcg
from evaluation.streaming.learner import Candidates, Server, Servers, batches, learn, learn_day
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
from onerec.settings import EvaluationSettings
from trainer.state import TrainState

Longs = NDArray[np.int64]
NEVER_MS = 2**62
POWERS = {0.0: COOCCURRENCE, 0.1: power_name(0.1), 0.25: power_name(0.25), 0.5: COMBINED}
"""Of popularity beside co-occurrence, among which one is chosen, and the systems that they make."""


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
        self, timeline: Timeline, servers: Servers, interval_ms: int, from_ms: int, finer: _Arm | None = None
    ) -> None:
        """Visits before `from_ms` are left out.

        `finer` exchanges more often, and ranks first: where it served the same version, its rankings are taken.
        """
        self.found = Candidates.of(len(timeline.cases))
        self.versions: Longs = np.full(len(timeline.cases), -1, np.int64)
        self._begin_ms = timeline.cases.begin_ms
        self._interval_ms = interval_ms
        self._servers = servers
        self._finer = finer
        self._next = int(np.searchsorted(self._begin_ms, from_ms, side="left"))
        self._learned_ms = 0
        self._server: Server = servers.exchange(None)

    def before_step(self, time_ms: int) -> None:
        """The state, unchanged since `after_step`, changes at `time_ms`: a multiple in between exchanges weights."""
        boundary_ms = -(-self._learned_ms // self._interval_ms) * self._interval_ms
        if boundary_ms < time_ms:
            self.rank_before(boundary_ms)
            self._server = self._servers.exchange(self._server)

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
        self.versions[cases] = self._server.version
        if self._finer is not None:
            known = self._finer.versions[cases] == self._server.version
            self.found.put(cases[known], self._finer.found.at(cases[known]))
            cases = cases[~known]
        self.found.put(cases, self._server.rank(cases))


def online(
    timeline: Timeline,
    state: TrainState,
    recipe: Recipe,
    from_ms: int = BEGIN_MS,
    *,
    only: Iterable[str] = (),
    on_day: Callable[[int, dict[str, Candidates]], None] = lambda *_: None,
) -> dict[str, Candidates]:
    """What `frozen` and each synchronisation interval find, from one training; `only` some of them.

    `online` also for visits before `from_ms`: by them another order of its candidates is chosen. `on_day` is given each
    midnight (UTC) and what has been found for all visits before it.
    """
    intervals = {FROZEN: NEVER_MS, **INTERVALS_MS}
    wanted = set(only) or set(intervals)
    servers = Servers(timeline, state)
    arms: dict[str, _Arm] = {}
    for name, every_ms in intervals.items():
        if name in wanted:
            first_ms = BEGIN_MS if name == ONLINE else from_ms
            arms[name] = _Arm(timeline, servers, every_ms, first_ms, arms.get(ONLINE))
    midnight_ms = BEGIN_MS + DAY_MS
    for batch in batches(timeline.sessions, recipe):
        for arm in arms.values():
            arm.before_step(batch.time_ms)
        if batch.time_ms >= midnight_ms:
            for arm in arms.values():
                arm.rank_before(midnight_ms)
            on_day(midnight_ms, {name: arm.found for name, arm in arms.items()})
            midnight_ms += DAY_MS
        learn(state, timeline, batch.sessions)
        for arm in arms.values():
            arm.after_step(batch.time_ms)
    for arm in arms.values():
        arm.before_step(NEVER_MS)
        arm.rank_before(NEVER_MS)
    return {name: arm.found for name, arm in arms.items()}


def daily(timeline: Timeline, state: TrainState, recipe: Recipe, from_ms: int = BEGIN_MS) -> dict[str, Longs]:
    """Rankings [V, TOP] of the model that is trained once a day."""
    arm = _Arm(timeline, Servers(timeline, state), DAY_MS, from_ms)
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
    return {DAILY: arm.found.ranked}


def counts(timeline: Timeline, settings: EvaluationSettings) -> dict[str, Longs]:
    """Rankings [V, TOP] of the running counts, as leaves; of co-occurrence times each of POWERS, too."""
    others = [power for power, name in POWERS.items() if name not in SYSTEMS]
    found: dict[str, Longs] = {}
    for case, baselines in counting(timeline, settings):
        for name, items in baselines.ranked(int(timeline.cases.user_ids[case]), others).items():
            ranked = found.setdefault(name, np.full((len(timeline.cases), TOP), -1, np.int64))
            ranked[case, : len(items)] = timeline.catalogue.leaves(np.array(items, np.int64))
    return found


def counting(timeline: Timeline, settings: EvaluationSettings) -> Iterator[tuple[int, Baselines]]:
    """Each visit in order, with the counts as they are when it begins."""
    baselines, own = Baselines(settings, len(timeline.catalogue)), timeline.histories
    for user_id, begin, end in zip(
        own.user_ids.tolist(), own.starts[:-1].tolist(), own.starts[1:].tolist(), strict=True
    ):
        baselines.add_history(user_id, own.items[begin:end].tolist())
    exposures = timeline.exposures
    positive = (with_long_views(exposures) & POSITIVE) > 0
    case = 0
    columns = (exposures.user_ids, exposures.item_ids, exposures.times_ms, positive)
    for user_id, item_id, time_ms, liked in zip(*(column.tolist() for column in columns), strict=True):
        while case < len(timeline.cases) and timeline.cases.begin_ms[case] <= time_ms:
            yield case, baselines
            case += 1
        baselines.learn(user_id, item_id, time_ms, positive=liked)
