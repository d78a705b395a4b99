"""The high-quality rule and the session record."""

from __future__ import annotations

import pytest

from onerec.settings import HighQualityRule
from schemas.records import SessionItem
from stream.joiner.sessions import is_high_quality


def item(watch_ms: int = 0, labels: int = 0) -> SessionItem:
    return SessionItem(
        item_id=1, request_id=1, position=0, time_ms=1, watch_ms=watch_ms, duration_ms=1, labels=labels, produced_ms=1
    )


@pytest.mark.parametrize(
    ("items", "rule", "wanted"),
    [
        ([item(labels=1)] * 5, HighQualityRule(), True),
        ([item(labels=1)] * 4, HighQualityRule(), False),
        ([item(watch_ms=30_000)] * 2, HighQualityRule(), True),
        ([item(watch_ms=29_999)] * 2, HighQualityRule(), False),
        ([item(labels=2)], HighQualityRule(), True),
        ([item(labels=32)], HighQualityRule(), False),
        ([item(labels=2)], HighQualityRule(combine="all"), False),
        ([item(30_000, 1)] * 4 + [item(30_000, 1 + 4)], HighQualityRule(combine="all"), True),
        ([item()], HighQualityRule(min_watched=0, min_total_watch_ms=0, need_interaction=True), False),
        ([item()], HighQualityRule(min_watched=0, min_total_watch_ms=0, need_interaction=False), True),
    ],
)
def test_high_quality_by_the_papers_criteria(items: list[SessionItem], rule: HighQualityRule, *, wanted: bool) -> None:
    assert is_high_quality(items, rule) is wanted
