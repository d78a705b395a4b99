"""Visits: a user's exposures with no gap of more than 30 minutes; the replay sends one request for each.

An answer holds an item once, so an item that is shown again came with another request: there a visit is cut as well
(615 times in the log that ships with this, which has 141,258 visits by the gap alone).

Request ids are a hash of the user and the visit's start, so that the same log always asks the same requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.replay.log import Exposures, Longs

VISIT_GAP_MS = 30 * 60 * 1000
ASKED_BEFORE_MS = 1000
"""A request is sent so much event time before the first exposure of its visit."""

_MIX_1, _MIX_2, _GOLDEN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)
_ID_BITS = np.uint64((1 << 63) - 1)


@dataclass(frozen=True, slots=True)
class Visits:
    """The visits of a log, by exposure and by themselves.

    `request_ids` [V], `user_ids` [V] and `start_ms` [V] are in order of start (ties: as in the log);
    `of_exposure` [E] is each exposure's visit and `positions` [E] its place in that visit, from 0.
    """

    request_ids: Longs
    user_ids: Longs
    start_ms: Longs
    of_exposure: Longs
    positions: Longs


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64: a bijection of 64-bit integers whose bits look random (Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def request_ids(user_ids: Longs, start_ms: Longs) -> Longs:
    """63-bit ids, a function of user and start of the visit alone."""
    of_user = mixed(user_ids.astype(np.uint64) + _GOLDEN)
    return (mixed(of_user + start_ms.astype(np.uint64) * _GOLDEN) & _ID_BITS).astype(np.int64)


def visits_of(exposures: Exposures, gap_ms: int = VISIT_GAP_MS) -> Visits:
    """Cut exposures, which are in event-time order, into visits."""
    by_user = np.argsort(exposures.user_ids, kind="stable")
    users, times = exposures.user_ids[by_user], exposures.times_ms[by_user]
    begins = np.ones(len(users), dtype=bool)
    begins[1:] = (users[1:] != users[:-1]) | (times[1:] - times[:-1] > gap_ms)
    _cut_repeats(begins, exposures.item_ids[by_user])
    first_rows = np.flatnonzero(begins)  # [V] rows of by_user, ordered by user
    visit_by_user = np.cumsum(begins) - 1
    # Number the visits by when they begin; by_user[first_rows] is the exposure, and exposures are in time order.
    order = np.argsort(by_user[first_rows], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    of_exposure, positions = np.empty_like(by_user), np.empty_like(by_user)
    of_exposure[by_user] = rank[visit_by_user]
    positions[by_user] = np.arange(len(users)) - first_rows[visit_by_user]
    firsts = by_user[first_rows[order]]
    user_ids, start_ms = exposures.user_ids[firsts], exposures.times_ms[firsts]
    return Visits(request_ids(user_ids, start_ms), user_ids, start_ms, of_exposure, positions)


def _cut_repeats(begins: npt.NDArray[np.bool_], items: Longs) -> None:
    """Begin a visit at the first exposure that repeats an item of its visit, until no visit has a repeated item."""
    while True:
        visits = np.cumsum(begins)
        order = np.lexsort((items, visits))  # stable: of equal ones the later come later
        again = (np.diff(visits[order]) == 0) & (np.diff(items[order]) == 0)
        repeats = np.sort(order[1:][again])
        if not len(repeats):
            return
        _, first = np.unique(visits[repeats], return_index=True)
        begins[repeats[first]] = True
