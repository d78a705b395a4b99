"""How long the cascade's models train and how wide its stages are: compared by the judge of the run, on other users.

Users are of the half that the simulator was fitted on, without those of the warm-up, as they were before the log. Each
makes one visit to a cascade that was trained as in the full form, and what they would watch on average is compared. So
the cascade is chosen by the simulator that judges it; no OneRec arm is.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from typing import Any

import numpy as np

from evaluation.ab.cascade import known_of, past_of, rankers, recommended, retrieval
from evaluation.ab.protocol import FULL, Form
from evaluation.ab.warm_up import warm_exposures
from evaluation.baselines.cascade import Cascade, Sizes
from evaluation.baselines.sequences import Longs
from evaluation.simulator.crowd import Ask, Crowd, chosen_users
from evaluation.simulator.fit import fit_on_kuairand, is_fitted, states_of
from evaluation.simulator.live import FIT_USERS, HOUR_MS
from evaluation.table1.origin import commit
from evaluation.table1.protocol import SESSION_ITEMS
from evaluation.table1.world import EVERYTHING, of_users
from onerec.machine import machine
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Histories

LOG = logging.getLogger(__name__)
RETRIEVAL_EPOCHS = (3, 10, 20)
RANKING_EPOCHS = (2, 3, 6)
SIZES = tuple(
    Sizes(retrieved, pre_ranked)
    for retrieved, several in {
        2000: (500, 100),
        500: (250, 100, 20, 10),
        200: (100, 50, 20, 10),
        100: (20, 15, 10, 7, 5),
        50: (20, 10, 7, 5),
    }.items()
    for pre_ranked in several
)
USERS, SEED, BATCH = 3_000, 1, 128


def choose(form: Form = FULL, users: int = USERS) -> dict[str, Any]:
    """Every pair of trainings with every width: expected watch time of a visit, with its standard error, in seconds."""
    log = KuaiRand()
    items, histories, exposures = log.items(), log.histories(EVERYTHING), log.exposures()
    warm = warm_exposures(exposures, form.warm_exposures)
    past = past_of(items, histories, warm, form.cascade_users)
    visitors = Visitors(others(histories, warm.user_ids, users), items.item_ids)
    found = {epochs: retrieval(items, past, epochs, SEED) for epochs in RETRIEVAL_EPOCHS}
    ranking = {epochs: rankers(items, past, epochs, SEED) for epochs in RANKING_EPOCHS}
    trials = []
    for (epochs, model), (ranked, (pre_ranker, ranker)) in itertools.product(found.items(), ranking.items()):
        for sizes in SIZES:
            watch_s = visitors.watch_s(Cascade(model, pre_ranker, ranker, sizes))
            trial = {"retrieval_epochs": epochs, "ranking_epochs": ranked, **dataclasses.asdict(sizes)}
            trial["expected_watch_time_s"] = _mean_and_error(watch_s)
            LOG.info("%s", trial)
            trials.append(trial)
    origin = {"commit": commit(), "machine": machine()}
    return {"text": __doc__, "users": len(visitors), "seed": SEED, "trials": trials} | origin


def others(histories: Histories, warm: Longs, users: int) -> Histories:
    """So many of the users whom the simulator was fitted on and the warm-up does not show."""
    ids = histories.user_ids[is_fitted(histories.user_ids) & ~np.isin(histories.user_ids, warm)]
    drawn = chosen_users(ids.tolist(), users, SEED)
    return of_users(histories, lambda own: np.isin(own, drawn))


class Visitors:
    """Users of the simulator who come once, each time as they were before the log."""

    def __init__(self, histories: Histories, item_ids: Longs, fit_users: int | None = FIT_USERS) -> None:
        self._histories, self._item_ids = histories, item_ids
        self._simulator, _, self._items = fit_on_kuairand(fit_users)
        self._begin_ms = int(KuaiRand().exposures().times_ms[0])
        known = [
            known_of(item_ids, histories.items[first:last], histories.labels[first:last])
            for first, last in itertools.pairwise(histories.starts.tolist())
        ]
        self._known = dict(zip(histories.user_ids.tolist(), known, strict=True))

    def __len__(self) -> int:
        return len(self._known)

    def watch_s(self, cascade: Cascade) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[users] what each would watch of the first session on average, in seconds."""
        states = states_of(self._histories, self._items, self._simulator.rates)
        told = {"seed": SEED, "begin_ms": self._begin_ms, "spread_ms": 24 * HOUR_MS}
        crowd = Crowd(self._simulator, self._items, states, **told)
        asks = crowd.due(self._begin_ms + 24 * HOUR_MS)
        started_s = time.monotonic()
        for first in range(0, len(asks), BATCH):
            self._visit(crowd, asks[first : first + BATCH], cascade)
        LOG.info("%d visits in %.1f s", len(asks), time.monotonic() - started_s)
        return np.array([ask.visit.expected_watch_ms for ask in asks]) / 1000

    def _visit(self, crowd: Crowd, asks: list[Ask], cascade: Cascade) -> None:
        nothing = [np.empty(0, np.int64)] * len(asks)
        stages = recommended(cascade, [self._known[ask.user_id] for ask in asks], nothing)
        for ask, rows in zip(asks, stages.ranked[:, :SESSION_ITEMS].numpy(), strict=True):
            crowd.react(ask, self._item_ids[rows].tolist())


def _mean_and_error(watch_s: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    return [round(float(watch_s.mean()), 3), round(float(watch_s.std(ddof=1) / np.sqrt(len(watch_s))), 3)]
