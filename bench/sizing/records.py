"""Bytes that one request brings to the topics, by encoding records of the size that a system has."""

from __future__ import annotations

from typing import Any

from schemas.codec import Codec
from schemas.packed import pack_longs
from schemas.records import (
    Action,
    ActionKind,
    ClosedBy,
    History,
    Impression,
    Recommendation,
    RecommendedItem,
    Request,
    Session,
    SessionItem,
    Status,
)
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, RECOMMENDATIONS, REQUESTS, SESSIONS

NOW_MS = 1_760_000_000_000
LARGE_ID = 1 << 52
"""Ids of users, items and requests: large ones, as a large system has."""
FRAME_BYTES = 32
"""Kafka's own for each record of a batch: key, offset, time, length."""
_NAMED: dict[str, Any] = {"user_id": LARGE_ID, "request_id": LARGE_ID}


def bytes_a_record(history_items: int, session_items: int, ranked: int) -> dict[str, int]:
    """Bytes of one record of each topic that grows with requests, uncompressed, its key and frame included."""
    history: dict[str, Any] = {
        "history_items": pack_longs([LARGE_ID] * history_items),
        "history_times_ms": pack_longs([NOW_MS] * history_items),
        "history_labels": bytes(history_items),
    }
    records = {
        REQUESTS: Request(**_NAMED, time_ms=NOW_MS, produced_ms=NOW_MS),
        RECOMMENDATIONS: _recommendation(history_items, session_items, ranked),
        IMPRESSIONS: Impression(
            **_NAMED, item_id=LARGE_ID, position=3, time_ms=NOW_MS, model_version=9_999, produced_ms=NOW_MS
        ),
        ACTIONS: Action(
            **_NAMED,
            item_id=LARGE_ID,
            kind=ActionKind.VIEW,
            time_ms=NOW_MS,
            watch_ms=9_000,
            duration_ms=30_000,
            produced_ms=NOW_MS,
        ),
        SESSIONS: _session(history, session_items),
        HISTORIES: History(user_id=LARGE_ID, **history, updated_ms=NOW_MS),
    }
    key = len(str(LARGE_ID))
    return {topic.name: len(Codec(topic).encode(record)) + key + FRAME_BYTES for topic, record in records.items()}


def _recommendation(history_items: int, session_items: int, ranked: int) -> Recommendation:
    answer = RecommendedItem(item_id=LARGE_ID, log_prob=-3.0)
    return Recommendation(
        **_NAMED,
        status=Status.ANSWERED,
        session=(answer,) * session_items,
        session_log_prob=-20.0,
        ranked=(answer,) * ranked,
        model_version=9_999,
        catalogue_offset=LARGE_ID,
        history_length=history_items,
        time_ms=NOW_MS,
        produced_ms=NOW_MS,
        latency_ms=30.0,
    )


def _session(history: dict[str, Any], session_items: int) -> Session:
    shown: dict[str, Any] = {"item_id": LARGE_ID, "request_id": LARGE_ID, "position": 3, "time_ms": NOW_MS}
    item = SessionItem(**shown, watch_ms=9_000, duration_ms=30_000, labels=3, model_version=9_999, produced_ms=NOW_MS)
    return Session(
        session_id=LARGE_ID,
        user_id=LARGE_ID,
        **history,
        items=(item,) * session_items,
        start_ms=NOW_MS,
        end_ms=NOW_MS,
        total_watch_ms=60_000,
        high_quality=True,
        closed_by=ClosedBy.FULL,
        model_version=9_999,
    )
