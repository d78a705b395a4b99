"""What the joiner has to give out, computed from all events at once and sharing no code with it.

Only for events within the allowed lateness; what is late by more depends on when it came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from onerec.settings import JoinerSettings
from schemas.records import Action, Impression

BITS = {"view": 1, "like": 2, "follow": 4, "comment": 8, "share": 16, "dislike": 32}


@dataclass(frozen=True)
class ExpectedItem:
    item_id: int
    request_id: int
    position: int
    time_ms: int
    watch_ms: int
    duration_ms: int
    labels: int
    produced_ms: int


@dataclass(frozen=True)
class ExpectedSession:
    user_id: int
    history: tuple[tuple[int, int, int], ...]
    items: tuple[ExpectedItem, ...]


@dataclass(frozen=True)
class Expected:
    sessions: frozenset[ExpectedSession]
    histories: dict[int, tuple[tuple[int, int, int], ...]]
    late: int
    orphans: int


def expected(events: Iterable[Impression | Action], settings: JoinerSettings) -> Expected:
    by_user: dict[int, tuple[list[Impression], list[Action]]] = defaultdict(lambda: ([], []))
    for event in events:
        by_user[event.user_id][isinstance(event, Action)].append(event)  # type: ignore[arg-type]
    sessions: list[ExpectedSession] = []
    histories = {}
    late = orphans = 0
    for user_id, (impressions, actions) in by_user.items():
        timeline = _Timeline(user_id, impressions, actions, settings)
        sessions += timeline.sessions
        late += timeline.late
        orphans += timeline.orphans
        if timeline.history:
            histories[user_id] = tuple(tuple(entry) for entry in timeline.history[-settings.history_items :])
    return Expected(frozenset(sessions), histories, late, orphans)  # type: ignore[arg-type]


class _Timeline:
    """One user, from the first event to the last."""

    def __init__(
        self, user_id: int, impressions: list[Impression], actions: list[Action], settings: JoinerSettings
    ) -> None:
        self.user_id, self.settings = user_id, settings
        self.sessions: list[ExpectedSession] = []
        self.history: list[list[int]] = []
        self.late = self.orphans = 0
        shown = {(i.request_id, i.item_id): i for i in impressions}
        self.shown = sorted(shown.values(), key=lambda i: (i.time_ms, i.request_id, i.position, i.item_id))
        self.matched: dict[tuple[int, int], list[Action]] = defaultdict(list)
        unmatched = set()
        for act in actions:
            impression = shown.get((act.request_id, act.item_id))
            if impression is not None and abs(act.time_ms - impression.time_ms) < settings.feedback_window_ms:
                self.matched[act.request_id, act.item_id].append(act)
            else:
                unmatched.add(act)
        self._run(
            sorted(unmatched, key=lambda a: (a.time_ms, a.request_id, a.user_id, a.item_id, list(BITS).index(a.kind)))
        )

    def _run(self, unmatched: list[Action]) -> None:
        waiting = list(unmatched)
        for group in self._groups():
            before = list(self.history)
            for number, impression in enumerate(group):
                while waiting and waiting[0].time_ms < impression.time_ms:
                    self._unmatched(waiting.pop(0))
                if number == 0:
                    before = list(self.history)
                item = self._item(impression)
                self.history.append([item.item_id, item.time_ms, item.labels])
            if len(group) < self.settings.session_items:
                # Not full: it closes when the gap has passed; what falls due until then comes before.
                closes_ms = group[-1].time_ms + self.settings.session_gap_ms
                while waiting and waiting[0].time_ms + self.settings.feedback_window_ms < closes_ms:
                    if self._next_shown_ms(group) <= waiting[0].time_ms:
                        break
                    self._unmatched(waiting.pop(0))
            entries = tuple(tuple(entry) for entry in before[-self.settings.history_items :])
            items = tuple(self._item(impression) for impression in group)
            self.sessions.append(ExpectedSession(self.user_id, entries, items))  # type: ignore[arg-type]
        for act in waiting:
            self._unmatched(act)

    def _next_shown_ms(self, group: list[Impression]) -> int:
        position = self.shown.index(group[-1]) + 1
        return self.shown[position].time_ms if position < len(self.shown) else 2**62

    def _groups(self) -> list[list[Impression]]:
        groups: list[list[Impression]] = []
        for impression in self.shown:
            full = not groups or len(groups[-1]) == self.settings.session_items
            if full or impression.time_ms - groups[-1][-1].time_ms >= self.settings.session_gap_ms:
                groups.append([])
            groups[-1].append(impression)
        return groups

    def _item(self, impression: Impression) -> ExpectedItem:
        actions = self.matched[impression.request_id, impression.item_id]
        views = [act for act in actions if act.kind == "view"]
        watch_ms = max((act.watch_ms or 0 for act in views), default=0)
        duration_ms = max((act.duration_ms or 0 for act in views), default=0)
        labels = self._labels({act.kind for act in actions}, watch_ms, duration_ms)
        produced_ms = max((act.produced_ms for act in actions), default=impression.produced_ms)
        key = (impression.item_id, impression.request_id, impression.position, impression.time_ms)
        return ExpectedItem(*key, watch_ms, duration_ms, labels, produced_ms)

    def _labels(self, kinds: set[str], watch_ms: int, duration_ms: int) -> int:
        labels = sum(BITS[kind] for kind in kinds if kind != "view")
        rule = self.settings.labels
        seconds = duration_ms // rule.clock_ms * rule.clock_ms
        long = watch_ms >= rule.long_view_ms or (seconds > 0 and watch_ms >= rule.short_video_share * seconds)
        return labels + (1 if "view" in kinds and long else 0)

    def _unmatched(self, act: Action) -> None:
        for entry in reversed(self.history[-self.settings.history_items :]):
            if entry[0] == act.item_id and entry[1] <= act.time_ms + self.settings.feedback_window_ms:
                entry[2] |= self._labels({act.kind}, act.watch_ms or 0, act.duration_ms or 0)
                self.late += 1
                return
        self.orphans += 1
