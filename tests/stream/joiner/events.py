"""Events for the joiner's tests: made by hand, or drawn by hypothesis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from onerec.settings import JoinerSettings
from schemas.records import Action, ActionKind, History, Impression, Session
from stream.joiner.exposure import Came
from stream.joiner.join import Changes, Join
from stream.joiner.rows import action_row, impression_row

Event = Impression | Action
CAME = Came(0, 0, b"1", b"")


def impression(item: int, time_ms: int, *, user: int = 1, request: int = 1, position: int = 0) -> Impression:
    return Impression(
        request_id=request,
        user_id=user,
        item_id=item,
        position=position,
        time_ms=time_ms,
        model_version=3,
        produced_ms=10_000 + time_ms,
    )


def action(
    item: int,
    time_ms: int,
    kind: ActionKind = ActionKind.LIKE,
    *,
    user: int = 1,
    request: int = 1,
    watch_ms: int | None = None,
    duration_ms: int | None = None,
) -> Action:
    return Action(
        request_id=request,
        user_id=user,
        item_id=item,
        kind=kind,
        time_ms=time_ms,
        watch_ms=watch_ms,
        duration_ms=duration_ms,
        produced_ms=20_000 + time_ms,
    )


def view(item: int, time_ms: int, watch_ms: int, *, user: int = 1, request: int = 1) -> Action:
    return action(item, time_ms, ActionKind.VIEW, user=user, request=request, watch_ms=watch_ms, duration_ms=20_000)


@dataclass
class Results:
    """All that a join gave out, over any number of commits."""

    sessions: list[Session] = field(default_factory=list)
    histories: dict[int, History] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    late_impressions: int = 0
    duplicates: int = 0

    def add(self, changes: Changes, history_items: int) -> None:
        self.sessions += changes.sessions
        self.refused += [(refusal.source, str(refusal.reason)) for refusal in changes.refusals]
        self.late_impressions += changes.late_impressions
        self.duplicates += changes.duplicates
        for user_id, user in changes.users.items():
            if user.history_changed:
                self.histories[user_id] = user.history_record(history_items)
                user.history_changed = False


def new_join(rules: JoinerSettings) -> Join[Came]:
    return Join(rules, lambda _: None, lambda came: came)


def feed(join: Join[Any], event: Event, source: object = CAME) -> None:
    if isinstance(event, Impression):
        join.impression(impression_row(event), source)
    else:
        join.action(action_row(event), source)


KINDS = st.sampled_from(list(ActionKind))


@st.composite
def visits(draw: st.DrawFn, *, span_ms: int, window_ms: int) -> list[Event]:
    """Impressions of two users with actions before, within and after their windows, and orphans."""
    events: list[Event] = []
    for request in range(draw(st.integers(1, 12))):
        user = draw(st.integers(1, 2))
        time_ms = draw(st.integers(0, span_ms))
        for position in range(draw(st.integers(1, 3))):
            item = draw(st.integers(1, 6)) * 10 + position
            shown_ms = time_ms + draw(st.integers(0, 3))
            if draw(st.integers(0, 9)):
                events.append(impression(item, shown_ms, user=user, request=request, position=position))
            for _ in range(draw(st.integers(0, 2))):
                kind = draw(KINDS)
                watch = draw(st.integers(0, 30_000)) if kind is ActionKind.VIEW else None
                at_ms = max(0, shown_ms + draw(st.integers(-window_ms - 5, window_ms + 5)))
                events.append(action(item, at_ms, kind, user=user, request=request, watch_ms=watch))
    return events


def delivered(events: Sequence[Event], lateness_ms: int, seed: int) -> list[Event]:
    """One order of delivery in which no event comes behind one that is more than `lateness_ms` newer."""
    rng = random.Random(seed)
    return [event for _, _, event in sorted((e.time_ms + rng.uniform(0, lateness_ms), rng.random(), e) for e in events)]
