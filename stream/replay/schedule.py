"""What is sent when: requests, impressions and actions of all users in one order of event time.

`due_ms` is the event time at which a record is sent: its own event time, later where out-of-order or late
delivery is injected. Everything random is a hash of the seed and the exposure, so equal arguments give an equal
schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from schemas.labels import Label
from stream.replay.log import Exposures, Longs
from stream.replay.visits import ASKED_BEFORE_MS, Visits, mixed

LATE_SPREAD_MS = 600_000
"""How far apart late actions come, so that they meet windows in all states."""


class Kind(IntEnum):
    """What a row of the schedule is; also the order at equal times."""

    REQUEST = 0
    IMPRESSION = 1
    VIEW = 2
    LIKE = 3
    FOLLOW = 4
    COMMENT = 5
    SHARE = 6
    DISLIKE = 7


REACTIONS = {
    Kind.LIKE: Label.LIKE,
    Kind.FOLLOW: Label.FOLLOW,
    Kind.COMMENT: Label.COMMENT,
    Kind.SHARE: Label.SHARE,
    Kind.DISLIKE: Label.DISLIKE,
}


@dataclass(frozen=True, slots=True)
class Disorder:
    """How the schedule departs from the log."""

    seed: int = 0
    shuffle_ms: int = 0
    """Impressions and actions are sent up to so much event time late, requests never."""
    late_share: float = 0.0
    """This share of the actions is sent after `window_ms`, when their window has closed."""
    window_ms: int = 120_000
    ask_ahead_ms: int = 0
    """Requests are sent so much event time before their own event time."""
    view_report_ms: int | None = None
    """A view is reported when it ends or after so long, whichever comes first; None for when it ends."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rows [R] in the order of sending. `rows` index visits for requests, exposures for all else."""

    kinds: npt.NDArray[np.int8]
    rows: Longs
    times_ms: Longs
    due_ms: Longs

    def __len__(self) -> int:
        return len(self.kinds)


def reported_watch_ms(exposures: Exposures, view_report_ms: int | None) -> Longs:
    """[E] what the report of each view says: the watch time until it was reported."""
    if view_report_ms is None:
        return exposures.watch_ms
    return np.minimum(exposures.watch_ms, view_report_ms)


def schedule(exposures: Exposures, visits: Visits, disorder: Disorder) -> Schedule:
    """Merge everything that the exposures and their visits give rise to."""
    parts = [_requests(visits, disorder), _impressions(exposures, disorder)]
    watched = reported_watch_ms(exposures, disorder.view_report_ms)
    every = np.arange(len(exposures))
    parts.append(_actions(Kind.VIEW, every, exposures.times_ms + watched, exposures, disorder))
    for kind, label in REACTIONS.items():
        rows = np.flatnonzero(exposures.labels & np.uint8(label))
        within = (_uniform(rows, kind, disorder.seed) * watched[rows]).astype(np.int64)
        parts.append(_actions(kind, rows, exposures.times_ms[rows] + within, exposures, disorder))
    kinds = np.concatenate([np.full(len(part.rows), part.kinds, dtype=np.int8) for part in parts])
    rows, times_ms, due_ms = (
        np.concatenate([getattr(part, column) for part in parts]) for column in ("rows", "times_ms", "due_ms")
    )
    order = np.lexsort((rows, kinds, due_ms))
    return Schedule(kinds[order], rows[order], times_ms[order], due_ms[order])


@dataclass(frozen=True, slots=True)
class _Part:
    kinds: Kind
    rows: Longs
    times_ms: Longs
    due_ms: Longs


def _requests(visits: Visits, disorder: Disorder) -> _Part:
    asked_ms = visits.start_ms - ASKED_BEFORE_MS
    return _Part(Kind.REQUEST, np.arange(len(asked_ms)), asked_ms, asked_ms - disorder.ask_ahead_ms)


def _impressions(exposures: Exposures, disorder: Disorder) -> _Part:
    rows = np.arange(len(exposures))
    delay_ms = _displacement(rows, Kind.IMPRESSION, disorder)
    return _Part(Kind.IMPRESSION, rows, exposures.times_ms, exposures.times_ms + delay_ms)


def _actions(kind: Kind, rows: Longs, times_ms: Longs, exposures: Exposures, disorder: Disorder) -> _Part:
    due_ms = times_ms + _displacement(rows, kind, disorder)
    if disorder.late_share:
        late = _uniform(rows, kind + 100, disorder.seed) < disorder.late_share
        after_ms = 1 + (_uniform(rows, kind + 200, disorder.seed) * LATE_SPREAD_MS).astype(np.int64)
        due_ms = np.where(late, exposures.times_ms[rows] + disorder.window_ms + disorder.shuffle_ms + after_ms, due_ms)
    return _Part(kind, rows, times_ms, due_ms)


def _displacement(rows: Longs, stream: int, disorder: Disorder) -> Longs:
    return (_uniform(rows, stream + 300, disorder.seed) * disorder.shuffle_ms).astype(np.int64)


def _uniform(rows: Longs, stream: int, seed: int) -> npt.NDArray[np.float64]:
    """[R] numbers in [0, 1), a function of seed, stream and row."""
    salt = mixed(np.array([(seed * 1_000_003 + stream + 1) % (1 << 64)], dtype=np.uint64))
    return (mixed(rows.astype(np.uint64) + salt) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
