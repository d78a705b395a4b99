"""A log whose taste changes every day: what is liked today was never liked before."""

from __future__ import annotations

import numpy as np

from evaluation.streaming.protocol import BEGIN_MS, DAY_MS
from schemas.labels import Label
from stream.replay.log import Exposures, Histories, Items

USERS, ITEMS, DAYS, LIKED, VISITS, PAST = 120, 240, 3, 6, 3, 12
HOUR_MS = 3_600_000


class DriftingLog:
    """Every visit shows one of the day's items, which everybody watches long, and then one that nobody does."""

    def items(self) -> Items:
        embeddings = np.random.default_rng(1).normal(size=(ITEMS, 16)).astype(np.float32)
        nothing = np.zeros(ITEMS, np.int64)
        return Items(np.arange(ITEMS), embeddings, nothing + 40_000, nothing, ((),) * ITEMS, nothing)

    def histories(self, last: int) -> Histories:
        assert last >= PAST
        random = np.random.default_rng(2)
        items = np.concatenate([random.choice(ITEMS, PAST, replace=False) for _ in range(USERS)])
        labels = np.where(random.random(len(items)) < 0.5, Label.LONG_VIEW, 0).astype(np.uint8)
        users = np.arange(USERS)
        return Histories(users, np.arange(USERS + 1) * PAST, items, np.zeros(len(items), np.int64), labels, users * 0)

    def exposures(self) -> Exposures:
        """Visits of a user are hours apart."""
        random, rows = np.random.default_rng(3), []
        for day in range(DAYS):
            liked = np.arange(day * LIKED, (day + 1) * LIKED)
            others = np.arange(DAYS * LIKED, ITEMS)
            for user in range(USERS):
                for visit, item in enumerate(random.choice(liked, VISITS, replace=False).tolist()):
                    hour = 8 * visit + 6 * random.random()
                    at_ms = BEGIN_MS + day * DAY_MS + int(hour * HOUR_MS)
                    rows.append((at_ms, user, item, 30_000))
                    rows.append((at_ms + 35_000, user, int(random.choice(others)), 1_000))
        times, users, items, watch = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
        return Exposures(users, items, times, watch, np.full(len(rows), 40_000), np.zeros(len(rows), np.uint8))
