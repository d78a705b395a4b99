"""What a record's fields may hold beyond their Avro types: one table, `RULES`, checked after decoding.

A reader refuses a record with the first rule that it breaks. What needs more than the record itself (is the item
known, is the embedding as wide as the codebook's) is the reader's own to check.
"""

from __future__ import annotations

from typing import Any

from schemas import records
from schemas.rules import (
    Limits,
    Rule,
    Violation,
    each,
    embedding,
    finite,
    history,
    no_later,
    not_empty,
    packed,
    same_length,
    time,
    watch,
    within,
)

__all__ = ["RULES", "Limits", "Violation", "violation"]
INT = (0, 2**31 - 1)
LONG = (0, 2**63 - 1)
ID = LONG
LABELS = (0, 63)
DURATION_MS = (0, 366 * 24 * 3_600_000)
REQUESTED = (1, 10_000)
DEADLINE_MS = (0, 24 * 3_600_000)

_SESSION_ITEM = (
    within(ID, "item_id", "request_id"),
    within(INT, "position"),
    time("time_ms", "produced_ms"),
    watch("watch_ms"),
    within(DURATION_MS, "duration_ms"),
    within(LABELS, "labels"),
    within(LONG, "model_version", optional=True),
)
_RECOMMENDED_ITEM = (within(ID, "item_id"), finite("log_prob"))
_REWARDS = (finite("swt", "vtr", "wtr", "ltr", "scalar"),)
_OFFSET_RANGE = (within(INT, "partition", "records", "applied"), no_later("first_offset", "next_offset"))

RULES: dict[type, tuple[Rule, ...]] = {
    records.Item: (
        within(ID, "item_id"),
        embedding("embedding"),
        within(DURATION_MS, "duration_ms"),
        within((-1, ID[1]), "author_id"),
        time("created_ms"),
    ),
    records.ItemTokens: (
        within(ID, "item_id", "codebook_version"),
        not_empty("codes"),
        each("codes", within(INT)),
        within(DURATION_MS, "duration_ms"),
        time("created_ms"),
    ),
    records.Impression: (
        within(ID, "request_id", "user_id", "item_id"),
        within(INT, "position"),
        time("time_ms", "produced_ms"),
        within(LONG, "model_version", optional=True),
    ),
    records.Action: (
        within(ID, "request_id", "user_id", "item_id"),
        time("time_ms", "produced_ms"),
        watch("watch_ms", optional=True),
        within(DURATION_MS, "duration_ms", optional=True),
    ),
    records.History: (within(ID, "user_id"), history(), time("updated_ms")),
    records.Session: (
        within(ID, "session_id", "user_id"),
        history(),
        not_empty("items"),
        each("items", *_SESSION_ITEM),
        time("start_ms", "end_ms"),
        no_later("start_ms", "end_ms"),
        within(LONG, "total_watch_ms"),
        within(LONG, "model_version", optional=True),
    ),
    records.Request: (
        within(ID, "request_id", "user_id"),
        time("time_ms", "produced_ms"),
        within(REQUESTED, "items"),
        within(DEADLINE_MS, "deadline_ms"),
        packed("exclude_items"),
        within(DURATION_MS, "max_duration_ms", optional=True),
    ),
    records.Recommendation: (
        within(ID, "request_id", "user_id"),
        each("session", *_RECOMMENDED_ITEM),
        each("ranked", *_RECOMMENDED_ITEM),
        finite("session_log_prob", "latency_ms"),
        within(LONG, "model_version", "catalogue_offset"),
        within(INT, "history_length"),
        time("time_ms", "produced_ms"),
    ),
    records.PreferencePair: (
        within(ID, "pair_id", "request_id", "user_id"),
        time("time_ms"),
        history(),
        not_empty("chosen"),
        same_length("chosen", "rejected"),
        each("chosen", within(ID)),
        each("rejected", within(ID)),
        finite("chosen_log_prob", "rejected_log_prob"),
        each("chosen_rewards", *_REWARDS),
        each("rejected_rewards", *_REWARDS),
        within((2, INT[1]), "candidates"),
        within(LONG, "model_version", "catalogue_offset"),
    ),
    records.ModelVersion: (
        not_empty("model"),
        within(LONG, "version", "step", "size_bytes", "codebook_version"),
        within(LONG, "parent", optional=True),
        each("offsets", within(INT, "partition"), within(LONG, "next_offset")),
        time("created_ms"),
        packed("learned_produced_ms"),
    ),
    records.JournalEntry: (
        not_empty("model"),
        within(LONG, "step"),
        each("ranges", *_OFFSET_RANGE),
        finite("learning_rate"),
        within(LONG, "version", optional=True),
        time("time_ms"),
    ),
    records.DeadLetter: (within(INT, "partition"), within(LONG, "offset"), time("time_ms")),
}


def violation(record: Any, now_ms: int, limits: Limits | None = None) -> Violation | None:
    """The first rule that `record` breaks at wall clock `now_ms`, as reason and sentence; None where it keeps all."""
    limits = limits or _DEFAULT
    for rule in RULES[type(record)]:
        broken = rule(record, now_ms, limits)
        if broken is not None:
            return broken
    return None


_DEFAULT = Limits()
