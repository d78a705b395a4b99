"""The evaluated period visit by visit: what a user had been exposed to when a visit began, and took to in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines.sequences import Longs, Sequences
from stream.replay.log import Exposures
from stream.replay.visits import visits_of
from trainer.batches import positive


@dataclass(frozen=True, slots=True)
class VisitCases:
    """V visits in the order in which they begin, each with something to find."""

    user_ids: Longs  # [V]
    past: Sequences  # of V "users": all that the visit's user had been exposed to before it
    truth: list[set[int]]  # leaves

    def __len__(self) -> int:
        return len(self.user_ids)


def visit_cases(user_ids: Longs, whole: Sequences, exposures: Exposures, leaves: Longs, from_ms: int) -> VisitCases:
    """The visits of some users that begin at `from_ms` or later and have a positive that is new to the user.

    `whole` has everything of the users `user_ids` [U], the log last; `exposures` are the log's, in the order of time
    and of these users alone, `leaves` [E] their items, and labels have the joiner's long views.
    """
    rows = np.searchsorted(user_ids, exposures.user_ids)
    logged = np.bincount(rows, minlength=len(user_ids))
    by_user = np.argsort(rows, kind="stable")
    place = np.empty_like(by_user)  # of each exposure in `whole`
    within = np.arange(len(rows)) - np.repeat(np.cumsum(logged) - logged, logged)
    place[by_user] = (whole.starts[1:] - logged)[rows[by_user]] + within
    visits = visits_of(exposures)
    opening = np.flatnonzero(visits.positions == 0)
    end = np.empty(len(visits.start_ms), np.int64)
    end[visits.of_exposure[opening]] = place[opening]
    first = whole.starts[np.searchsorted(user_ids, visits.user_ids)]
    taken: list[set[int]] = [set() for _ in end]
    liked = positive(exposures.labels)
    for visit, leaf in zip(visits.of_exposure[liked].tolist(), leaves[liked].tolist(), strict=True):
        taken[visit].add(leaf)
    truth = [
        own - set(whole.items[a:b].tolist()) for own, a, b in zip(taken, first.tolist(), end.tolist(), strict=True)
    ]
    kept = np.flatnonzero((visits.start_ms >= from_ms) & np.array(list(map(bool, truth))))
    return VisitCases(
        visits.user_ids[kept], _parts(whole, first[kept], end[kept]), [truth[visit] for visit in kept.tolist()]
    )


def _parts(whole: Sequences, first: Longs, end: Longs) -> Sequences:
    """Exposures `first[v]:end[v]` for each v, as those of users."""
    sizes = end - first
    starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
    at = np.repeat(first - starts[:-1], sizes) + np.arange(starts[-1])
    return Sequences(starts, whole.items[at], whole.labels[at], whole.watch_ms[at])
