"""What became of one user's events: the session of each impression, and the impression of each action."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.events import JOINED, NONE, Done, Shown
from audit.exposure import Exposure, key_of, shown_key
from audit.refusals import REASONS
from onerec.settings import JoinerSettings
from schemas.reasons import Reason
from schemas.records import Session


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of a partition's event time and of how far it was joined.

    The joiner's watermark itself is not on the topics. It was at least `passed_ms` when the offsets were committed,
    and while an impression came it was at most the newest event time before it, less the allowed lateness, unless
    both inputs had stood still before (settings: idle_close_s), which idle sessions tell of.
    """

    settings: JoinerSettings
    passed_ms: int
    newest_ms: int
    newest_shown_ms: int
    shown_joined_to: int
    shown_maybe_to: int
    done_joined_to: int
    done_maybe_to: int
    standstill: int = sys.maxsize
    """Impressions from this offset on may have come after a standstill; maxsize where there was none."""
    settled: int = 0
    """Impressions before this offset were there when the joiner closed all sessions because its inputs stood still."""
    repeats_allowed: bool = False
    """Whether the broker may serve what was aborted."""

    def in_order(self, shown: Shown) -> bool:
        """Whether the watermark had certainly not passed an impression when it came."""
        return shown.time_ms >= shown.before_ms - self.settings.allowed_lateness_ms and shown.offset < self.standstill

    def may_be_late(self, shown: Shown) -> bool:
        """Whether the watermark may have passed its window when it came."""
        late = shown.time_ms + self.settings.feedback_window_ms <= shown.before_ms - self.settings.allowed_lateness_ms
        return late or shown.offset >= self.standstill

    def may_have_closed(self, shown: Shown, action: Done) -> bool:
        """Whether an impression's window may have closed before an action came."""
        newest_ms = max(action.before_ms, self.newest_shown_ms)
        closes_ms = shown.time_ms + self.settings.feedback_window_ms
        return newest_ms - self.settings.allowed_lateness_ms >= closes_ms or self.standstill < sys.maxsize

    def may_have_given_up(self, action: Done, shown: Shown) -> bool:
        """Whether an action may have waited in vain before its impression came."""
        given_up_ms = action.time_ms + self.settings.feedback_window_ms
        return shown.before_ms - self.settings.allowed_lateness_ms >= given_up_ms or shown.offset >= self.standstill

    def has_passed(self, time_ms: int) -> bool:
        """Whether the window of something of this event time had certainly closed."""
        return time_ms + self.settings.feedback_window_ms <= self.passed_ms


@dataclass(slots=True, eq=False)
class Found:
    """A session of the topic, and by item the exposure that it is, None where there is no such impression."""

    offset: int
    session: Session
    exposures: list[Exposure | None] = field(default_factory=list)


@dataclass(slots=True)
class Matched:
    """The user's impressions and actions by their fate."""

    left: list[Exposure] = field(default_factory=list)
    """Certainly joined and in no session, in order of event time."""
    maybe_left: list[Exposure] = field(default_factory=list)
    """Perhaps joined, and in no session."""
    accounted: int = 0
    """Impressions, certainly joined, that are in a session, refused or repetitions."""
    refused_twice: list[Shown] = field(default_factory=list)
    """Impressions in a session that are in dead-letters, too."""
    uncommitted: list[Found] = field(default_factory=list)
    """Sessions with impressions that are not joined by what is committed."""


def match_impressions(
    sessions: Sequence[Found], shown: Sequence[Shown], stream: Stream, remembered: set[tuple[int, int]]
) -> Matched:
    """Give each session's items their impressions, and each other impression its reason.

    `remembered`: items and times of imported histories, of which a late impression may be a repetition.
    """
    matched = Matched()
    by_key: dict[tuple[int, int, int, int, int], list[Shown]] = defaultdict(list)
    for one in sorted(shown, key=lambda s: (s.refused != NONE, s.offset), reverse=True):
        by_key[shown_key(one)].append(one)
    used: set[int] = set()
    keys: set[tuple[int, int]] = set()
    moments = set(remembered)
    for found in sessions:
        for item in found.session.items:
            candidates = by_key.get(key_of(item))
            impression = candidates.pop() if candidates else None
            found.exposures.append(None if impression is None else Exposure(impression))
            if impression is not None:
                used.add(impression.offset)
                keys.add((impression.request_id, impression.item_id))
                moments.add((impression.item_id, impression.time_ms))
                if impression.refused != NONE:
                    matched.refused_twice.append(impression)
        if any(e is not None and e.shown.offset >= stream.shown_maybe_to for e in found.exposures):
            matched.uncommitted.append(found)
    for one in shown:
        certain = one.offset < stream.shown_joined_to
        if one.offset not in used and one.refused == NONE and one.offset < stream.shown_maybe_to:
            key, moment = (one.request_id, one.item_id), (one.item_id, one.time_ms)
            repeats = key in keys or (moment in moments and stream.may_be_late(one))
            keys.add(key)
            moments.add(moment)
            if not repeats:
                (matched.left if certain else matched.maybe_left).append(Exposure(one))
                continue
        matched.accounted += certain
    matched.left.sort(key=lambda exposure: exposure.order)
    return matched


@dataclass(slots=True)
class Actions:
    """The user's actions that no exposure took for certain."""

    late: list[Done] = field(default_factory=list)
    """Refused as late: their labels went to the history."""
    early: list[tuple[Done, Exposure]] = field(default_factory=list)
    """Refused though the window was certainly open."""
    refused: dict[int, list[Done]] = field(default_factory=lambda: defaultdict(list))
    """By offset of the impression, those refused that name it."""
    unresolved: list[Done] = field(default_factory=list)
    """Perhaps joined, and of no exposure: their labels may have reached the history."""
    lost: list[Done] = field(default_factory=list)
    open: int = 0
    accounted: int = 0


def match_actions(actions: Sequence[Done], exposures: Sequence[Exposure], stream: Stream) -> Actions:
    """Give each exposure its actions: those of its key within the window that were not refused."""
    found = Actions()
    by_key: dict[tuple[int, int], list[Exposure]] = defaultdict(list)
    for exposure in exposures:
        by_key[exposure.shown.request_id, exposure.shown.item_id].append(exposure)
    window_ms = stream.settings.feedback_window_ms
    refused: list[Done] = []
    for action in actions:
        near = [
            exposure
            for exposure in by_key.get((action.request_id, action.item_id), ())
            if abs(action.time_ms - exposure.shown.time_ms) < window_ms
        ]
        certain = action.offset < stream.done_joined_to
        if action.refused != NONE:
            _take_refused(action, near, stream, found)
            refused.append(action)
            found.accounted += certain
        elif action.offset < stream.done_maybe_to:
            # Of equal actions that wait for an impression, the joiner keeps and refuses one.
            sure = certain and not any(action.same(other) for other in refused)
            resolved = _take(action, near, stream, sure=sure)
            if not certain and not near:
                found.unresolved.append(action)
            if certain and not resolved:
                found.lost.append(action)
            else:
                found.accounted += certain
                found.open += certain and not near
    lost = [action for action in found.lost if not any(action.same(other) for other in refused)]
    found.accounted += len(found.lost) - len(lost)
    found.lost = lost
    return found


def _take(action: Done, near: list[Exposure], stream: Stream, *, sure: bool) -> bool:
    """Give an action that was not refused to its exposure; False where it should have been refused by now."""
    passed = stream.has_passed(action.time_ms)
    for exposure in near:
        alone = len(near) == 1
        joined = passed or not stream.may_have_closed(exposure.shown, action)
        (exposure.sure if sure and alone and joined else exposure.maybe).append(action)
    return bool(near) or not passed


def _take_refused(action: Done, near: list[Exposure], stream: Stream, found: Actions) -> None:
    if REASONS[action.refused] not in JOINED:
        return
    if REASONS[action.refused] is Reason.LATE:
        found.late.append(action)
    for exposure in near:
        found.refused[exposure.shown.offset].append(action)
        if stream.repeats_allowed:
            exposure.maybe.append(action)
        elif not (stream.may_have_closed(exposure.shown, action) or stream.may_have_given_up(action, exposure.shown)):
            found.early.append((action, exposure))
