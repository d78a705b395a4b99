"""The join of one partition: events in, closed sessions and changed users out. No Kafka, no clock, no disk.

`impression` and `action` take events as they come, `advance` lets the watermark pass and works off what falls due.
The result is a function of the events alone as long as none is later than the watermark allows; later ones are
counted and kept, see `User.add` and `User.resolve`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onerec.settings import JoinerSettings
from schemas.reasons import Reason
from schemas.records import ClosedBy, History, Session
from schemas.topics import ACTIONS, IMPRESSIONS
from stream.joiner.exposure import Came, Exposure, Waiting
from stream.joiner.rows import ITEM, REQUEST, TIME_MS, USER, ActionRow, ImpressionRow
from stream.joiner.user import NEVER_MS, User
from stream.joiner.work import Refusal

MOST_OPEN = 4000
"""Open impressions of one user, and waiting actions, from which on more are refused: all of a user's state is one
record of the changelog, which has to stay below a broker's `message.max.bytes` of 1 MB."""
MOST_USERS = 20_000
"""Users worked off in one go: when much falls due at once, it becomes several transactions of bearable size."""
BEGINNING_MS = -(2**63)
"""A watermark that has not passed anything."""

Source = TypeVar("Source")
"""What an event came as: a Kafka message."""
LoadHistory = Callable[[int], History | None]


@dataclass(slots=True)
class Changes:
    """What has happened since the last commit."""

    sessions: list[Session] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    users: dict[int, User] = field(default_factory=dict)
    events: int = 0
    late_impressions: int = 0
    duplicates: int = 0

    def session(self, session: Session) -> None:
        """A session has closed."""
        self.sessions.append(session)

    def refuse(self, source: str, came: Came, reason: Reason, detail: str) -> None:
        """A record goes to dead-letters."""
        self.refusals.append(Refusal(source, came, reason, detail))


class Join(Generic[Source]):
    """Users with something open, and timers for what falls due. Histories of all others stay where they are stored."""

    def __init__(self, settings: JoinerSettings, load_history: LoadHistory, came: Callable[[Source], Came]) -> None:
        """`load_history` knows the histories of users of whom nothing is open; `came` tells where an event stood."""
        self.settings = settings
        self.users: dict[int, User] = {}
        self.watermark_ms = BEGINNING_MS
        self.changes = Changes()
        self._load_history = load_history
        self._came = came
        self._window_ms = settings.feedback_window_ms
        self._timers: list[tuple[int, int]] = []

    def restore(self, user: User) -> None:
        """Put back a user whose state was stored."""
        user.reschedule(self.settings)
        self.users[user.user_id] = user
        self._set_timer(user)

    def impression(self, row: ImpressionRow, source: Source) -> None:
        """An item was shown. One that is known already is counted and changes nothing."""
        request_id, user_id, item_id, position, time_ms, model_version, produced_ms = row
        self.changes.events += 1
        user = self._user(user_id)
        key = (request_id, item_id)
        if key in user.open or (user.session and any(key == other.key for other in user.session)):
            self.changes.duplicates += 1
            return
        exposure = Exposure(request_id, item_id, position, time_ms, model_version, produced_ms)
        if time_ms + self._window_ms <= self.watermark_ms:
            self._late_impression(user, exposure, source)
        elif len(user.open) >= MOST_OPEN:
            self._refuse_excess(IMPRESSIONS.name, source)
        else:
            if user.waiting:
                user.take_waiting(exposure, self._window_ms)
            user.open[key] = exposure
            user.state_changed = True
            if time_ms + self._window_ms < user.due_ms:
                self._due(user, time_ms + self._window_ms)

    def action(self, row: ActionRow, source: Source) -> None:
        """Something was done with an item. One that is known already is counted and changes nothing."""
        time_ms = row[TIME_MS]
        self.changes.events += 1
        user = self._user(row[USER])
        window_ms = self._window_ms
        key = (row[REQUEST], row[ITEM])
        exposure = user.open.get(key)
        if exposure is not None and -window_ms < time_ms - exposure.time_ms < window_ms:
            if exposure.take(row):
                user.state_changed = True
            else:
                self.changes.duplicates += 1
        elif time_ms + window_ms <= self.watermark_ms:
            self._catch_up(user)
            user.resolve(Waiting(row, self._came(source)), self.settings, self.changes)
        elif any(other.action == row for other in user.waiting.get(key, ())):
            self.changes.duplicates += 1
        else:
            self._wait(user, Waiting(row, self._came(source)), source)

    def advance(self, watermark_ms: int, most: int = MOST_USERS) -> None:
        """No event before `watermark_ms` is waited for any more: work off what falls due, of `most` users at a time.

        The watermark never goes back. What is left is worked off by the next calls, whatever their watermark.
        """
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        timers = self._timers
        while timers and timers[0][0] <= self.watermark_ms and most > 0:
            due_ms, user_id = heapq.heappop(timers)
            user = self.users.get(user_id)
            if user is not None and user.due_ms == due_ms:
                self._work_off(user)
                most -= 1

    def is_behind(self) -> bool:
        """Whether `advance` has something left to do."""
        return bool(self._timers) and self._timers[0][0] <= self.watermark_ms

    def close_idle(self, most: int = MOST_USERS) -> bool:
        """The stream stands still: publish sessions in the making too, `most` at a time; whether that was all."""
        standing = [user for user in self.users.values() if user.session]
        for user in standing[:most]:
            user.close_session(ClosedBy.IDLE, self.settings, self.changes)
            self.changes.users[user.user_id] = user
        return len(standing) <= most

    def take_changes(self) -> Changes:
        """What has happened since the last call; after the commit, `forget` the users in it."""
        changes, self.changes = self.changes, Changes()
        return changes

    def forget(self, changes: Changes) -> None:
        """The changes are stored: drop users of whom only the history is left."""
        for user_id, user in changes.users.items():
            if user.is_idle() and user_id not in self.changes.users:
                self.users.pop(user_id, None)

    def _user(self, user_id: int) -> User:
        user = self.users.get(user_id)
        if user is None:
            user = User.of(user_id, self._load_history(user_id))
            self.users[user_id] = user
        self.changes.users[user_id] = user
        return user

    def _wait(self, user: User, waiting: Waiting, source: Source) -> None:
        """An action before its impression."""
        if user.waiting_places() + waiting.places > MOST_OPEN:
            self._refuse_excess(ACTIONS.name, source)
            return
        row = waiting.action
        user.waiting.setdefault((row[REQUEST], row[ITEM]), []).append(waiting)
        user.state_changed = True
        due_ms = row[TIME_MS] + self._window_ms
        if due_ms < user.due_ms:
            self._due(user, due_ms)

    def _due(self, user: User, due_ms: int) -> None:
        """Something of the user falls due at `due_ms`, before all else."""
        user.due_ms = due_ms
        heapq.heappush(self._timers, (due_ms, user.user_id))

    def _set_timer(self, user: User) -> None:
        if user.due_ms != NEVER_MS:
            heapq.heappush(self._timers, (user.due_ms, user.user_id))

    def _work_off(self, user: User) -> None:
        user.work_off(self.watermark_ms, self.settings, self.changes)
        self.changes.users[user.user_id] = user
        self._set_timer(user)

    def _catch_up(self, user: User) -> None:
        """Before something late is joined, all that is due comes first."""
        if user.due_ms <= self.watermark_ms:
            self._work_off(user)

    def _refuse_excess(self, topic: str, source: Source) -> None:
        detail = f"the user has {MOST_OPEN} open already, more than people do"
        self.changes.refuse(topic, self._came(source), Reason.OUT_OF_BOUNDS, detail)

    def _late_impression(self, user: User, exposure: Exposure, source: Source) -> None:
        """Its window has passed already: join it at once with what is there."""
        self._catch_up(user)
        history = user.history
        if history.holds(exposure.item_id, exposure.time_ms):
            self.changes.duplicates += 1
            return
        oldest_ms = history.time_ms(0)
        if len(history) >= self.settings.history_items and oldest_ms is not None and exposure.time_ms <= oldest_ms:
            detail = "no newer than the whole history: it cannot be told from a repetition"
            self.changes.refuse(IMPRESSIONS.name, self._came(source), Reason.LATE, detail)
            return
        self.changes.late_impressions += 1
        user.take_waiting(exposure, self._window_ms)
        user.add(exposure, self.settings, self.changes, late=True)
        due_ms = user.due_ms
        user.reschedule(self.settings)
        if user.due_ms != due_ms:
            self._set_timer(user)
