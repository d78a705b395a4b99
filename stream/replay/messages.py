"""Rows of a schedule to records with their topic, key and event time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.records import Action, ActionKind, History, Impression, Item, Request
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, ITEMS, REQUESTS, Topic, id_key
from stream.replay.log import Exposures, Histories, Items
from stream.replay.schedule import Kind, Schedule, reported_watch_ms
from stream.replay.visits import Visits

CHUNK = 4096
REQUESTED_ITEMS = 10
ACTION_KINDS = {kind.value: ActionKind[kind.name] for kind in Kind if kind >= Kind.VIEW}


Message = tuple[Topic, bytes, int, Any]
"""Topic, key, timestamp in ms, record."""
Row = tuple[int, int, int, int, int, int, int]
"""Of an event: request, user, item, event time, position, watch time, length of the item."""


def item_messages(items: Items, now_ms: int) -> Iterator[Message]:
    """An Item for every row."""
    embeddings = items.embeddings.astype("<f4")  # [N, d]
    for row, item_id in enumerate(items.item_ids.tolist()):
        record = Item(
            item_id=item_id,
            embedding=embeddings[row].tobytes(),
            duration_ms=int(items.durations_ms[row]),
            author_id=int(items.author_ids[row]),
            tags=items.tags[row],
            created_ms=int(items.created_ms[row]),
        )
        yield ITEMS, id_key(item_id), now_ms, record


def history_messages(histories: Histories) -> Iterator[Message]:
    """A History for every user, stamped with the event time of its newest change."""
    items, times = histories.items.astype("<i8"), histories.times_ms.astype("<i8")
    starts, updated_ms = histories.starts.tolist(), histories.updated_ms.tolist()
    for row, user_id in enumerate(histories.user_ids.tolist()):
        chosen = slice(starts[row], starts[row + 1])
        record = History(
            user_id=user_id,
            history_items=items[chosen].tobytes(),
            history_times_ms=times[chosen].tobytes(),
            history_labels=histories.labels[chosen].tobytes(),
            updated_ms=updated_ms[row],
        )
        yield HISTORIES, id_key(user_id), updated_ms[row], record


def event_rows(
    exposures: Exposures, visits: Visits, plan: Schedule, view_report_ms: int | None
) -> Iterator[tuple[int, int, Row]]:
    """In the order of sending: due_ms, kind, and what `event` makes a record of."""
    watched_ms = reported_watch_ms(exposures, view_report_ms)
    for first in range(0, len(plan), CHUNK):
        chosen = slice(first, first + CHUNK)
        kinds, targets = plan.kinds[chosen], plan.rows[chosen]
        asks = kinds == Kind.REQUEST
        exposure = np.where(asks, 0, targets)
        visit = np.where(asks, targets, visits.of_exposure[exposure])
        columns = (
            visits.request_ids[visit],
            visits.user_ids[visit],
            exposures.item_ids[exposure],
            plan.times_ms[chosen],
            visits.positions[exposure],
            watched_ms[exposure],
            exposures.durations_ms[exposure],
        )
        values = zip(*(column.tolist() for column in columns), strict=True)
        yield from zip(plan.due_ms[chosen].tolist(), kinds.tolist(), values, strict=True)


def event(kind: int, values: Row, produced_ms: int) -> tuple[Topic, Any]:
    """The topic and the record of one row of `event_rows`, sent at wall clock `produced_ms`."""
    request_id, user_id, item_id, time_ms, position, watch_ms, duration_ms = values
    if kind == Kind.REQUEST:
        return REQUESTS, Request(
            request_id=request_id,
            user_id=user_id,
            time_ms=time_ms,
            items=REQUESTED_ITEMS,
            exclude_seen=True,
            produced_ms=produced_ms,
        )
    if kind == Kind.IMPRESSION:
        return IMPRESSIONS, Impression(
            request_id=request_id,
            user_id=user_id,
            item_id=item_id,
            position=position,
            time_ms=time_ms,
            produced_ms=produced_ms,
        )
    views = kind == Kind.VIEW
    return ACTIONS, Action(
        request_id=request_id,
        user_id=user_id,
        item_id=item_id,
        kind=ACTION_KINDS[kind],
        time_ms=time_ms,
        watch_ms=watch_ms if views else None,
        duration_ms=duration_ms if views else None,
        produced_ms=produced_ms,
    )
