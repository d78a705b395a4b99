"""The join alone: any impressions and actions in any order; each exposure is in one session or refused."""

from __future__ import annotations

from itertools import pairwise

from schemas.records import ActionKind, Impression
from tests.stream.joiner.events import Event, action, impression
from tests.stream.joiner.test_join import SETTINGS, run

KINDS = list(ActionKind)
EVENT_BYTES = 5
SEEDS = [
    bytes(10 * n % 256 if n % EVENT_BYTES == 2 else n % 7 for n in range(size * EVENT_BYTES)) for size in (1, 6, 20)
]


def event_of(data: bytes) -> Event:
    """User and kind, item, time (two bytes), request."""
    who, item, high, low, request = data
    user, kind, time_ms = who % 3, who // 3 % 8, 16 * high + low
    if kind >= len(KINDS):
        return impression(item % 8, time_ms, user=user, request=request % 4, position=item % 8)
    watch_ms = 100 * low if KINDS[kind] is ActionKind.VIEW else None
    return action(item % 8, time_ms, KINDS[kind], user=user, request=request % 4, watch_ms=watch_ms)


def target(data: bytes) -> None:
    """Five bytes an event."""
    whole = len(data) - len(data) % EVENT_BYTES
    events = [event_of(data[at : at + EVENT_BYTES]) for at in range(0, whole, EVENT_BYTES)]
    shown = {(one.user_id, one.request_id, one.item_id) for one in events if isinstance(one, Impression)}

    results = run(events, SETTINGS, batch=1 + len(data) % 5)

    joined = [
        (session.user_id, item.request_id, item.item_id) for session in results.sessions for item in session.items
    ]
    refused = results.refused.count(("impressions", "late"))
    assert set(joined) <= shown
    came = sum(isinstance(one, Impression) for one in events)
    assert len(joined) + refused <= came <= len(joined) + refused + results.duplicates
    for session in results.sessions:
        assert len(session.items) <= SETTINGS.session_items
        assert all(0 <= after.time_ms - one.time_ms < SETTINGS.session_gap_ms for one, after in pairwise(session.items))
