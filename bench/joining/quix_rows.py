"""The join that quixstreams runs for a user, in plain dictionaries and lists as its state takes them."""

from __future__ import annotations

from typing import Any

WINDOW_MS, GAP_MS, SESSION_ITEMS, HISTORY_ITEMS = 600_000, 1_800_000, 5, 64
REQUEST, ITEM, TIME, WATCH, DURATION, MARKED = range(6)


def new_user() -> dict[str, Any]:
    """Nothing open, nothing pending, no history."""
    return {"open": [], "pending": [], "history": []}


def advance(user: dict[str, Any], event: dict[str, Any]) -> list[dict[str, Any]]:
    """Take an event: the sessions that it closes, and the history where it changed."""
    results = _close(event["user_id"], user, event["time_ms"])
    if "position" in event:
        user["open"].append([event["request_id"], event["item_id"], event["time_ms"], 0, 0, 0])
    else:
        for row in user["open"]:
            if row[REQUEST] == event["request_id"] and row[ITEM] == event["item_id"]:
                row[WATCH] = max(row[WATCH], event["watch_ms"] or 0)
                row[DURATION] = event["duration_ms"] or row[DURATION]
                row[MARKED] |= event["kind"] != "view"
                break
    return results


def _close(user_id: int, user: dict[str, Any], now_ms: int) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    changed = False
    while user["open"] and user["open"][0][TIME] + WINDOW_MS <= now_ms:
        row = user["open"].pop(0)
        if user["pending"] and row[TIME] - user["pending"][-1][TIME] > GAP_MS:
            results.append(_session(user_id, user))
        user["pending"].append(row)
        if len(user["pending"]) == SESSION_ITEMS:
            results.append(_session(user_id, user))
        if row[MARKED] or 2 * row[WATCH] > row[DURATION] > 0:
            user["history"] = [*user["history"], [row[ITEM], row[TIME]]][-HISTORY_ITEMS:]
            changed = True
    if changed:
        results.append({"user_id": user_id, "history": user["history"]})
    return results


def _session(user_id: int, user: dict[str, Any]) -> dict[str, Any]:
    items, user["pending"] = user["pending"], []
    return {"user_id": user_id, "items": items, "history": user["history"]}
