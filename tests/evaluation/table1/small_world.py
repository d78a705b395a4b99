"""A log with a rule that can be learned: a user keeps to one group of items and takes to the next one of it.

Nobody ever takes to the items of the other half of the groups, which are shown to everybody.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from evaluation.table1.protocol import QUICK, SPLIT_MS, Form, GenerativeTraining
from evaluation.table1.world import Keep, World, load, of_users
from onerec.model.presets import ModelConfig, preset
from schemas.labels import Label
from stream.replay.log import Exposures, Histories, Items

USERS, GROUPS, OF_GROUP, PAST, LOGGED = 900, 6, 24, 16, 20
ITEMS = GROUPS * OF_GROUP
CONFIG: ModelConfig = dataclasses.replace(preset("tiny"), session_items=5, history_items=32)
FORM: Form = dataclasses.replace(
    QUICK,
    users=None,
    cases=40,
    candidates=6,
    onerec=GenerativeTraining(samples=256),
    tiger=GenerativeTraining(samples=512),
    judge_samples=256,
    reward_samples=128,
    judge_epochs=1,
    preference_users=5,
    preference_steps=4,
)
Change = Callable[[Exposures], Exposures]


class SmallLog:
    """The log, with the histories of the users kept; `change` is applied to its exposures."""

    def __init__(self, keep: Keep, change: Change = lambda exposures: exposures) -> None:
        self._keep, self._change = keep, change

    def items(self) -> Items:
        """Groups lie apart."""
        random = np.random.default_rng(0)
        group = np.arange(ITEMS) // OF_GROUP
        embeddings = np.eye(16)[group] + 0.2 * random.standard_normal((ITEMS, 16))
        items = Items(
            item_ids=1000 + np.arange(ITEMS),
            embeddings=embeddings.astype(np.float32),
            durations_ms=np.full(ITEMS, 20_000),
            author_ids=np.arange(ITEMS) // 3,
            tags=tuple((f"group {one}",) for one in group),
            created_ms=np.zeros(ITEMS, np.int64),
        )
        return items.most_seen_first(self.histories(PAST))

    def histories(self, last: int) -> Histories:
        """The first exposures of every user."""
        items, liked = _walks()
        return of_users(
            Histories(
                user_ids=np.arange(USERS),
                starts=np.arange(USERS + 1) * PAST,
                items=items[:, :PAST].ravel(),
                times_ms=np.zeros(USERS * PAST, np.int64),
                labels=(liked[:, :PAST].ravel() * int(Label.LONG_VIEW)).astype(np.uint8),
                updated_ms=np.zeros(USERS, np.int64),
            ),
            self._keep,
        )

    def exposures(self) -> Exposures:
        """The others, one an hour; ten of them before the split."""
        items, liked = (columns[:, PAST:] for columns in _walks())
        hours = np.tile(np.arange(LOGGED) - 10, USERS)
        times_ms = SPLIT_MS + 3_600_000 * hours + np.repeat(np.arange(USERS), LOGGED)
        long = liked.ravel()
        exposures = Exposures(
            user_ids=np.repeat(np.arange(USERS), LOGGED),
            item_ids=items.ravel(),
            times_ms=times_ms,
            watch_ms=np.where(long, 25_000, 2_000),
            durations_ms=np.full(USERS * LOGGED, 20_000),
            labels=(long * int(Label.LIKE)).astype(np.uint8),
        )
        return self._change(exposures.rows(np.argsort(times_ms, kind="stable")))


def _walks() -> tuple[np.ndarray, np.ndarray]:
    """Item ids and what was liked, [USERS, PAST + LOGGED]: about every second one is the next of the group."""
    random = np.random.default_rng(1)
    count = PAST + LOGGED
    group, first = random.integers(0, GROUPS // 2, (USERS, 1)), random.integers(0, OF_GROUP, (USERS, 1))
    liked = random.random((USERS, count)) < 0.5
    own = group * OF_GROUP + (first + liked.cumsum(1)) % OF_GROUP
    other = random.integers(ITEMS // 2, ITEMS, (USERS, count))
    return 1000 + np.where(liked, own, other), liked


def unchanged(exposures: Exposures) -> Exposures:
    """The log as it is."""
    return exposures


@functools.cache
def small_world(change: Change = unchanged) -> World:
    """The log, split; nobody changes a world, so that each is made once."""
    return load(FORM, CONFIG, lambda keep: SmallLog(keep, change))
