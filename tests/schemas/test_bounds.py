"""Every documented range is held, and each refusal says which field broke it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from schemas.bounds import RULES, Limits, violation
from schemas.packed import pack_floats, pack_longs
from schemas.reasons import Reason
from schemas.records import (
    Action,
    DeadLetter,
    History,
    Impression,
    Item,
    ItemTokens,
    JournalEntry,
    ModelVersion,
    OffsetRange,
    PreferencePair,
    Recommendation,
    RecommendedItem,
    Request,
    Session,
    TopicOffset,
)
from schemas.topics import TOPICS
from tests.schemas.examples import BY_TYPE, EXAMPLES, EXPOSURE, REWARDS, TIME_MS

NOW_MS = TIME_MS + 60_000
FUTURE_MS = NOW_MS + 3_600_001
BOUNDS, FUTURE, NON_FINITE, WIDTH = Reason.OUT_OF_BOUNDS, Reason.FUTURE, Reason.NON_FINITE, Reason.WRONG_WIDTH
NAN, INF = float("nan"), float("inf")

BROKEN: list[tuple[type, dict[str, Any], Reason]] = [
    (Item, {"item_id": -1}, BOUNDS),
    (Item, {"embedding": b""}, WIDTH),
    (Item, {"embedding": b"\x00" * 7}, WIDTH),
    (Item, {"embedding": pack_floats([1.0, NAN])}, NON_FINITE),
    (Item, {"embedding": pack_floats([INF, -INF])}, NON_FINITE),
    (Item, {"duration_ms": -1}, BOUNDS),
    (Item, {"author_id": -2}, BOUNDS),
    (Item, {"created_ms": FUTURE_MS}, FUTURE),
    (ItemTokens, {"codes": ()}, BOUNDS),
    (ItemTokens, {"codes": (1, -1, 2)}, BOUNDS),
    (ItemTokens, {"codes": (1, 2**40, 2)}, BOUNDS),
    (ItemTokens, {"codebook_version": -1}, BOUNDS),
    (Impression, {"request_id": -5}, BOUNDS),
    (Impression, {"user_id": -5}, BOUNDS),
    (Impression, {"position": -1}, BOUNDS),
    (Impression, {"position": 2**31}, BOUNDS),
    (Impression, {"time_ms": -1}, BOUNDS),
    (Impression, {"time_ms": FUTURE_MS}, FUTURE),
    (Impression, {"produced_ms": FUTURE_MS}, FUTURE),
    (Impression, {"model_version": -1}, BOUNDS),
    (Action, {"item_id": -1}, BOUNDS),
    (Action, {"watch_ms": -1}, BOUNDS),
    (Action, {"watch_ms": 86_400_001}, BOUNDS),
    (Action, {"duration_ms": -1}, BOUNDS),
    (Action, {"time_ms": 2**62}, FUTURE),
    (History, {"user_id": -1}, BOUNDS),
    (History, {"history_items": pack_longs([1, 2])}, BOUNDS),
    (History, {"history_items": b"\x00" * 23}, BOUNDS),
    (History, {"history_times_ms": b"\x00" * 16}, BOUNDS),
    (History, {"history_labels": b"\x00"}, BOUNDS),
    (History, {"history_labels": bytes([0, 64, 0])}, BOUNDS),
    (History, {"history_items": pack_longs([1, -2, 3])}, BOUNDS),
    (History, {"history_times_ms": pack_longs([0, 0, -1])}, BOUNDS),
    (History, {"history_times_ms": pack_longs([0, FUTURE_MS, 0])}, FUTURE),
    (History, {"updated_ms": FUTURE_MS}, FUTURE),
    (Session, {"session_id": -1}, BOUNDS),
    (Session, {"items": ()}, BOUNDS),
    (Session, {"items": (EXPOSURE, dataclasses.replace(EXPOSURE, labels=64))}, BOUNDS),
    (Session, {"items": (dataclasses.replace(EXPOSURE, watch_ms=-1),)}, BOUNDS),
    (Session, {"items": (dataclasses.replace(EXPOSURE, item_id=-1),)}, BOUNDS),
    (Session, {"items": (dataclasses.replace(EXPOSURE, time_ms=FUTURE_MS),)}, FUTURE),
    (Session, {"start_ms": TIME_MS + 1}, BOUNDS),
    (Session, {"total_watch_ms": -1}, BOUNDS),
    (Session, {"history_labels": bytes([0, 0, 255])}, BOUNDS),
    (Request, {"items": 0}, BOUNDS),
    (Request, {"items": 10_001}, BOUNDS),
    (Request, {"deadline_ms": -1}, BOUNDS),
    (Request, {"exclude_items": b"\x00" * 9}, BOUNDS),
    (Request, {"exclude_items": pack_longs([-1])}, BOUNDS),
    (Request, {"max_duration_ms": -1}, BOUNDS),
    (Recommendation, {"session": (RecommendedItem(item_id=-1, log_prob=0.0),)}, BOUNDS),
    (Recommendation, {"ranked": (RecommendedItem(item_id=1, log_prob=NAN),)}, NON_FINITE),
    (Recommendation, {"session_log_prob": -INF}, NON_FINITE),
    (Recommendation, {"history_length": -1}, BOUNDS),
    (PreferencePair, {"chosen": (), "rejected": ()}, BOUNDS),
    (PreferencePair, {"chosen": (1, 2, 3)}, BOUNDS),
    (PreferencePair, {"rejected": (1, -2)}, BOUNDS),
    (PreferencePair, {"chosen_log_prob": NAN}, NON_FINITE),
    (PreferencePair, {"rejected_rewards": dataclasses.replace(REWARDS, vtr=INF)}, NON_FINITE),
    (PreferencePair, {"candidates": 1}, BOUNDS),
    (ModelVersion, {"model": ""}, BOUNDS),
    (ModelVersion, {"version": -1}, BOUNDS),
    (ModelVersion, {"offsets": (TopicOffset(topic="sessions", partition=0, next_offset=-1),)}, BOUNDS),
    (ModelVersion, {"learned_produced_ms": b"\x00" * 7}, BOUNDS),
    (JournalEntry, {"step": -1}, BOUNDS),
    (
        JournalEntry,
        {"ranges": (OffsetRange(topic="s", partition=0, first_offset=9, next_offset=8, records=0, applied=0),)},
        BOUNDS,
    ),
    (JournalEntry, {"learning_rate": NAN}, NON_FINITE),
    (DeadLetter, {"offset": -1}, BOUNDS),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_what_is_right_is_taken(record: Any) -> None:
    assert violation(record, NOW_MS) is None


@pytest.mark.parametrize(("cls", "change", "reason"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_refused(cls: type, change: dict[str, Any], reason: Reason) -> None:
    broken = violation(dataclasses.replace(BY_TYPE[cls], **change), NOW_MS)
    assert broken is not None
    assert broken[0] is reason
    assert any(name in broken[1] for name in change), f"{broken[1]} does not name the field"


def test_optional_fields_may_be_null() -> None:
    assert violation(dataclasses.replace(BY_TYPE[Action], watch_ms=None, duration_ms=None), NOW_MS) is None
    assert violation(dataclasses.replace(BY_TYPE[Impression], model_version=None), NOW_MS) is None


def test_an_empty_history_is_a_history() -> None:
    empty = dataclasses.replace(BY_TYPE[History], history_items=b"", history_times_ms=b"", history_labels=b"")
    assert violation(empty, NOW_MS) is None


def test_limits_are_settings() -> None:
    action = dataclasses.replace(BY_TYPE[Action], watch_ms=2_000, time_ms=NOW_MS + 10)
    assert violation(action, NOW_MS, Limits(max_watch_ms=2_000, max_future_ms=10)) is None
    assert violation(action, NOW_MS, Limits(max_watch_ms=1_999)) is not None
    assert violation(action, NOW_MS, Limits(max_future_ms=9)) == (
        Reason.FUTURE,
        f"time_ms: {NOW_MS + 10} is 10 ms ahead of the wall clock",
    )


def test_every_record_of_a_topic_has_rules() -> None:
    assert set(RULES) == {topic.record for topic in TOPICS if topic.record is not None}
