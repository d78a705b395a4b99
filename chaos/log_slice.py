"""A slice of the real log that fits the smallest model: its most shown items, and the people who saw most of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onerec.settings import Settings
from stream.replay.command import disorder_of
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures, Histories, Items, Longs
from stream.replay.messages import Row, event_rows
from stream.replay.schedule import Kind, schedule
from stream.replay.visits import visits_of

ITEMS = 400
"""Preset tiny has 512 semantic ids."""
USERS = 1500
ASKED_SHARE = 4
"""One visit in so many asks: people here mostly come for one exposure, and two cores serve no request for each."""


@dataclass(frozen=True, slots=True)
class LogSlice:
    """What the systems under test are fed with; read once, published to each."""

    items: Items
    histories: Histories
    exposures: Exposures

    def rows(self, settings: Settings) -> Iterator[tuple[int, Row]]:
        """Kind and values of every record in the order of sending, for `stream.replay.messages.event`."""
        visits, disorder = visits_of(self.exposures), disorder_of(settings)
        plan = schedule(self.exposures, visits, disorder)
        for _, kind, row in event_rows(self.exposures, visits, plan, disorder.view_report_ms):
            if kind != Kind.REQUEST or not row[0] % ASKED_SHARE:
                yield kind, row


def read_slice(history_items: int) -> LogSlice:
    """Cut the KuaiRand that ships with this."""
    log = KuaiRand()
    everything = log.exposures()
    popular = _most_frequent(everything.item_ids, ITEMS)
    exposures = everything.rows(np.flatnonzero(np.isin(everything.item_ids, popular)))
    busy = _most_frequent(exposures.user_ids, USERS)
    items = log.items()
    return LogSlice(
        items=_items(items, np.flatnonzero(np.isin(items.item_ids, popular))),
        histories=_histories(log.histories(history_items), busy, popular),
        exposures=exposures.rows(np.flatnonzero(np.isin(exposures.user_ids, busy))),
    )


def _most_frequent(values: Longs, count: int) -> Longs:
    found, counts = np.unique(values, return_counts=True)
    return found[np.argsort(-counts, kind="stable")[:count]]


def _items(items: Items, rows: Longs) -> Items:
    return replace(
        items,
        item_ids=items.item_ids[rows],
        embeddings=items.embeddings[rows],
        durations_ms=items.durations_ms[rows],
        author_ids=items.author_ids[rows],
        tags=tuple(items.tags[row] for row in rows.tolist()),
        created_ms=items.created_ms[rows],
    )


def _histories(histories: Histories, users: Longs, items: Longs) -> Histories:
    """Those of `users`, with `items` alone."""
    lengths = np.diff(histories.starts)
    owner = np.repeat(np.arange(len(histories)), lengths)
    chosen = np.isin(histories.user_ids, users)
    kept = np.isin(histories.items, items) & chosen[owner]
    rows = np.flatnonzero(chosen)
    counts = np.bincount(owner[kept], minlength=len(histories))[rows]
    return Histories(
        user_ids=histories.user_ids[rows],
        starts=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        items=histories.items[kept],
        times_ms=histories.times_ms[kept],
        labels=histories.labels[kept],
        updated_ms=histories.updated_ms[rows],
    )
