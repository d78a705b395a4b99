"""One user's part of the join: what is open, what waits, the session in the making and the history.

Everything that falls due is worked off in the order of event time, so the result does not depend on when the
watermark moved or how events were batched:

- an impression of time t closes at t + window, with the actions whose times lie less than a window from its own;
- an action that no impression took by its time + window is late (the history has the item) or an orphan;
- a session closes at m exposures, or when an exposure comes a gap or more after its last one, or when the
  watermark passes last + gap and no open impression can join it any more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from onerec.settings import JoinerSettings
from schemas.reasons import Reason
from schemas.records import ClosedBy, History, Session
from schemas.topics import ACTIONS
from stream.joiner.exposure import Came, Exposure, Waiting
from stream.joiner.history import ExposureHistory
from stream.joiner.sessions import session_record

NEVER_MS = 2**63 - 1
_ORDER = attrgetter("time_ms", "request_id", "position", "item_id")
"""Event-time order of exposures; ties as they stood in the answer."""


class Out(Protocol):
    """Where results go."""

    def session(self, session: Session) -> None:
        """A session has closed."""

    def refuse(self, source: str, came: Came, reason: Reason, detail: str) -> None:
        """A record goes to dead-letters; `source` is impressions or actions."""


@dataclass(slots=True, eq=False)
class User:
    """The state of one user; `history` reaches further back than n by the exposures of the open session."""

    user_id: int
    history: ExposureHistory
    open: dict[tuple[int, int], Exposure] = field(default_factory=dict)
    waiting: dict[tuple[int, int], list[Waiting]] = field(default_factory=dict)
    session: list[Exposure] = field(default_factory=list)
    due_ms: int = NEVER_MS
    """When something falls due next; the user has a timer for it."""
    updated_ms: int = 0
    """Event time of the history's newest change."""
    state_changed: bool = False
    history_changed: bool = False
    stored: bool = False
    """Whether the changelog has a record of this user, which a tombstone must delete once nothing is open."""

    @classmethod
    def of(cls, user_id: int, record: History | None) -> User:
        """A user of whom there is at most a history."""
        if record is None:
            return cls(user_id, ExposureHistory())
        return cls(user_id, ExposureHistory.of(record), updated_ms=record.updated_ms)

    def history_record(self, history_items: int) -> History:
        """The newest `history_items` exposures as they are published."""
        newest = self.history.part(max(0, len(self.history) - history_items), len(self.history))
        return History(
            user_id=self.user_id,
            history_items=newest.items,
            history_times_ms=newest.times_ms,
            history_labels=newest.labels,
            updated_ms=self.updated_ms,
        )

    def is_idle(self) -> bool:
        """Whether only the history is left, which has its own topic."""
        return not (self.open or self.waiting or self.session)

    def waiting_count(self) -> int:
        """How many actions wait for their impressions."""
        return sum(map(len, self.waiting.values()))

    def waiting_places(self) -> int:
        """The same, with those of unusual size counted as many."""
        return sum([one.places for actions in self.waiting.values() for one in actions])

    def work_off(self, watermark_ms: int, settings: JoinerSettings, out: Out) -> None:
        """Do what falls due up to the watermark, in order of its time, and find what is due next."""
        until_ms = watermark_ms - settings.feedback_window_ms
        closing = [exposure for exposure in self.open.values() if exposure.time_ms <= until_ms]
        if closing:
            closing.sort(key=_ORDER)
            self.state_changed = True
            for exposure in closing:
                del self.open[exposure.key]
        overdue = self._take_overdue(until_ms) if self.waiting else []
        if overdue:
            self._work_off_both(closing, overdue, settings, out)
        else:
            for exposure in closing:
                self.add(exposure, settings, out)
        first_open_ms = self._first_open_ms()
        self._close_gap(watermark_ms, first_open_ms, settings, out)
        self.due_ms = self._next_due_ms(first_open_ms, settings)

    def _work_off_both(
        self, closing: list[Exposure], overdue: list[Waiting], settings: JoinerSettings, out: Out
    ) -> None:
        """Close exposures and resolve actions in the order in which they fall due, each a window after its time."""
        self.state_changed = True
        coming = deque(closing)
        for waiting in overdue:
            while coming and coming[0].time_ms <= waiting.time_ms:
                self.add(coming.popleft(), settings, out)
            next_ms = coming[0].time_ms if coming else self._first_open_ms()
            self._close_gap(waiting.time_ms + settings.feedback_window_ms, next_ms, settings, out)
            self.resolve(waiting, settings, out)
        for exposure in coming:
            self.add(exposure, settings, out)

    def add(self, exposure: Exposure, settings: JoinerSettings, out: Out, *, late: bool = False) -> None:
        """A closed exposure enters history and session; a late one takes its place in event time."""
        if late and self._stands_alone(exposure, settings):
            self._add_alone(exposure, settings, out)
            return
        if self.session and exposure.time_ms >= self.session[-1].time_ms + settings.session_gap_ms:
            self.close_session(ClosedBy.GAP, settings, out)
        after = sum(_ORDER(other) > _ORDER(exposure) for other in self.session) if late else 0
        self.session.insert(len(self.session) - after, exposure)
        self._remember(exposure, settings, before_last=after)
        if len(self.session) >= settings.session_items:
            self.close_session(ClosedBy.FULL, settings, out)

    def close_session(self, closed_by: ClosedBy, settings: JoinerSettings, out: Out) -> None:
        """Publish the session in the making."""
        before = self._before(len(self.history) - len(self.session), settings)
        out.session(session_record(self.user_id, self.session, before, closed_by, settings))
        self.session = []
        self.history.keep(settings.history_items)
        self.state_changed = True

    def resolve(self, waiting: Waiting, settings: JoinerSettings, out: Out) -> None:
        """An action without an open impression: its labels still reach the history where the item is there."""
        until_ms = waiting.time_ms + settings.feedback_window_ms
        labels = waiting.labels(settings.labels)
        changed = self.history.add_labels(waiting.item_id, until_ms, labels, newest=settings.history_items)
        if changed is None:
            out.refuse(ACTIONS.name, waiting.came, Reason.ORPHAN, f"no impression of item {waiting.item_id}")
            return
        if changed:
            self.history_changed = True
            self.updated_ms = max(self.updated_ms, waiting.time_ms)
        out.refuse(ACTIONS.name, waiting.came, Reason.LATE, f"the impression of item {waiting.item_id} had closed")

    def reschedule(self, settings: JoinerSettings) -> None:
        """Find what falls due next, after the state was restored."""
        self.due_ms = self._next_due_ms(self._first_open_ms(), settings)

    def _stands_alone(self, late: Exposure, settings: JoinerSettings) -> bool:
        """Whether a late exposure is too old for the session in the making: by a gap, or by other exposures since."""
        if self.session:
            first_ms = self.session[0].time_ms
            if late.time_ms >= first_ms:
                return False
            if late.time_ms <= first_ms - settings.session_gap_ms:
                return True
        newest_before_ms = self.history.time_ms(len(self.history) - len(self.session) - 1)
        return newest_before_ms is not None and newest_before_ms > late.time_ms

    def _add_alone(self, exposure: Exposure, settings: JoinerSettings, out: Out) -> None:
        """A session of one, at its place in the history."""
        index = self._remember(exposure, settings, before_last=len(self.session), by_time=True)
        before = self._before(index, settings)
        out.session(session_record(self.user_id, (exposure,), before, ClosedBy.GAP, settings))

    def _remember(
        self, exposure: Exposure, settings: JoinerSettings, *, before_last: int, by_time: bool = False
    ) -> int:
        """Put it into the history; its index there."""
        keep = settings.history_items + len(self.session)
        labels = exposure.labels(settings.labels)
        if before_last or by_time:
            index = self.history.insert(exposure.item_id, exposure.time_ms, labels, before_last, by_time=by_time)
            index -= self.history.keep(keep)
        else:
            index = self.history.append(exposure.item_id, exposure.time_ms, labels, keep)
        self.state_changed = True
        self.history_changed = True
        self.updated_ms = max(self.updated_ms, exposure.time_ms)
        return index

    def _before(self, stop: int, settings: JoinerSettings) -> ExposureHistory:
        return self.history.part(max(0, stop - settings.history_items), stop)

    def _close_gap(self, now_ms: int, next_ms: int, settings: JoinerSettings, out: Out) -> None:
        """Close the session where its gap has passed by `now_ms` and no exposure before `next_ms` will come."""
        if self.session:
            gap_ms = self.session[-1].time_ms + settings.session_gap_ms
            if gap_ms <= now_ms and gap_ms <= next_ms:
                self.close_session(ClosedBy.GAP, settings, out)

    def _take_overdue(self, until_ms: int) -> list[Waiting]:
        """Take out the waiting actions with times up to `until_ms`, in order of time."""
        overdue: list[Waiting] = []
        for key, actions in list(self.waiting.items()):
            left = [waiting for waiting in actions if waiting.time_ms > until_ms]
            if len(left) < len(actions):
                overdue += [waiting for waiting in actions if waiting.time_ms <= until_ms]
                self._wait(key, left)
        return sorted(overdue, key=_waiting_order)

    def _wait(self, key: tuple[int, int], actions: list[Waiting]) -> None:
        if actions:
            self.waiting[key] = actions
        else:
            self.waiting.pop(key, None)

    def take_waiting(self, exposure: Exposure, window_ms: int) -> None:
        """Give a new exposure the actions that came before it."""
        actions = self.waiting.get(exposure.key)
        if actions is not None:
            left = []
            for waiting in actions:
                if abs(waiting.time_ms - exposure.time_ms) < window_ms:
                    exposure.take(waiting.action)
                else:
                    left.append(waiting)
            self._wait(exposure.key, left)

    def _first_open_ms(self) -> int:
        return min((exposure.time_ms for exposure in self.open.values()), default=NEVER_MS)

    def _next_due_ms(self, first_open_ms: int, settings: JoinerSettings) -> int:
        window_ms = settings.feedback_window_ms
        due_ms = NEVER_MS if first_open_ms == NEVER_MS else first_open_ms + window_ms
        for actions in self.waiting.values():
            due_ms = min(due_ms, *(waiting.time_ms + window_ms for waiting in actions))
        if self.session:
            gap_ms = self.session[-1].time_ms + settings.session_gap_ms
            if gap_ms <= first_open_ms:  # else the open impression decides, when it closes
                due_ms = min(due_ms, gap_ms)
        return due_ms


def _waiting_order(waiting: Waiting) -> tuple[int, tuple[int, ...], int]:
    return (waiting.time_ms, waiting.action[:4], waiting.came.offset)  # fields that are null in some do not compare
