"""One exposure by the documented rules: what its actions make of it, and the session that exposures make."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import NamedTuple

from audit.events import NONE, Done, Shown
from onerec.settings import HighQualityRule, JoinerSettings, LabelSettings
from schemas.labels import Label
from schemas.records import ActionKind, Session, SessionItem

LONG_VIEW = int(Label.LONG_VIEW)
BITS = (LONG_VIEW, *map(int, (Label.LIKE, Label.FOLLOW, Label.COMMENT, Label.SHARE, Label.DISLIKE)))
"""By the number of the action's kind. Plain integers: an enum's operators are many times slower."""
VIEW = list(ActionKind).index(ActionKind.VIEW)
INTERACTION = int(Label.LIKE | Label.FOLLOW | Label.COMMENT | Label.SHARE)
MOST_TRIED = 4
"""So many actions of unknown fate are tried in all combinations."""


class Outcome(NamedTuple):
    """What was done with an exposure."""

    watch_ms: int
    duration_ms: int
    labels: int
    produced_ms: int


def outcome(shown: Shown, actions: Sequence[Done], rule: LabelSettings) -> Outcome:
    """What these actions make of an impression; their order makes no difference."""
    kinds = watch_ms = duration_ms = 0
    for action in actions:
        kinds |= BITS[action.kind]
        watch_ms = max(watch_ms, action.watch_ms)
        duration_ms = max(duration_ms, action.duration_ms)
    if kinds & LONG_VIEW and not rule.is_long_view(watch_ms, duration_ms):
        kinds &= ~LONG_VIEW
    produced_ms = max([action.produced_ms for action in actions], default=shown.produced_ms)
    return Outcome(watch_ms, duration_ms, kinds, produced_ms)


def lone_labels(action: Done, rule: LabelSettings) -> int:
    """The labels that one action makes by itself: what reaches the history where it came too late."""
    if action.kind == VIEW:
        return int(rule.is_long_view(max(0, action.watch_ms), max(0, action.duration_ms)))
    return BITS[action.kind]


@dataclass(slots=True, eq=False)
class Exposure:
    """An impression that was joined, or may be, with the actions that belong to it."""

    shown: Shown
    sure: list[Done] = field(default_factory=list)
    maybe: list[Done] = field(default_factory=list)
    """May have been joined or not: what is known of the stream does not tell."""
    _known: tuple[int, Outcome] | None = None
    """The outcome, and of how many actions it is."""

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Order of exposures: event time, ties as they stood in the answer."""
        shown = self.shown
        return (shown.time_ms, shown.request_id, shown.position, shown.item_id)

    def outcome(self, rule: LabelSettings) -> Outcome:
        """What its certain actions make of it."""
        if self._known is None or self._known[0] != len(self.sure):
            self._known = len(self.sure), outcome(self.shown, self.sure, rule)
        return self._known[1]

    def explain(self, found: Outcome, rule: LabelSettings) -> list[Done] | None:
        """Which of the uncertain actions make it `found`; None where none do."""
        for count in range(min(len(self.maybe), MOST_TRIED) + 1):
            for chosen in combinations(self.maybe, count):
                if outcome(self.shown, [*self.sure, *chosen], rule) == found:
                    return list(chosen)
        if len(self.maybe) > MOST_TRIED and outcome(self.shown, [*self.sure, *self.maybe], rule) == found:
            return self.maybe
        return None


def key_of(item: SessionItem) -> tuple[int, int, int, int, int]:
    """What a session's item says of its impression."""
    version = NONE if item.model_version is None else item.model_version
    return (item.request_id, item.item_id, item.time_ms, item.position, version)


def shown_key(shown: Shown) -> tuple[int, int, int, int, int]:
    """The same of the impression."""
    return (shown.request_id, shown.item_id, shown.time_ms, shown.position, shown.model_version)


def session_id(user_id: int, request_id: int, item_id: int, time_ms: int) -> int:
    """The id that the first exposure gives: 63 bits of a hash of user, request, item and time."""
    data = b"".join(value.to_bytes(8, "little", signed=True) for value in (user_id, request_id, item_id, time_ms))
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=b"session").digest(), "little") & (2**63 - 1)


def wrong_fields(session: Session, settings: JoinerSettings) -> list[str]:
    """What in a session does not follow from its own items."""
    items, first = session.items, session.items[0]
    wanted = {
        "session_id": session_id(session.user_id, first.request_id, first.item_id, first.time_ms),
        "start_ms": first.time_ms,
        "end_ms": items[-1].time_ms,
        "total_watch_ms": sum(item.watch_ms for item in items),
        "high_quality": is_high_quality(items, settings.high_quality),
        "model_version": first.model_version,
    }
    return [f"{name} is {getattr(session, name)} instead of {value}" for name, value in wanted.items()
            if getattr(session, name) != value]  # fmt: skip


def wrong_shape(session: Session, settings: JoinerSettings) -> list[str]:
    """What in the grouping of a session's items breaks the rules."""
    problems = []
    orders = [(item.time_ms, item.request_id, item.position, item.item_id) for item in session.items]
    if orders != sorted(orders):
        problems.append("its items are not in event-time order")
    if any(b[0] - a[0] >= settings.session_gap_ms for a, b in pairwise(orders)):
        problems.append("there is a gap between its items")
    if len(orders) > settings.session_items:
        problems.append(f"it has {len(orders)} items")
    if (session.closed_by == "full") != (len(orders) == settings.session_items):
        problems.append(f"closed_by is {session.closed_by} with {len(orders)} items")
    return problems


def is_high_quality(items: Iterable[SessionItem], rule: HighQualityRule) -> bool:
    """The rule of the settings; a criterion that is 0 or false does not count."""
    items = list(items)
    watched = sum(item.labels & LONG_VIEW for item in items)
    total_ms = sum(item.watch_ms for item in items)
    interacted = any(item.labels & INTERACTION for item in items)
    criteria = [
        watched >= rule.min_watched if rule.min_watched else None,
        total_ms >= rule.min_total_watch_ms if rule.min_total_watch_ms else None,
        interacted if rule.need_interaction else None,
    ]
    met = [criterion for criterion in criteria if criterion is not None]
    if not met:
        return True
    return all(met) if rule.combine == "all" else any(met)
