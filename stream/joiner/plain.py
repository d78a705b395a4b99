"""The join in Python with its records: the reference, and what runs where nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Message

from onerec.settings import JoinerSettings
from schemas.records import Action, History, Impression
from schemas.topics import id_key
from stream.joiner.columns import Columns
from stream.joiner.exposure import Came
from stream.joiner.join import Changes, Join
from stream.joiner.joining import HISTORY_PREFIX, USER_PREFIX, Open
from stream.joiner.rows import ITEM, TIME_MS, ActionRow, ImpressionRow
from stream.joiner.state import pack_user, unpack_user
from stream.joiner.user import User
from stream.joiner.watermark import IMPRESSIONS
from stream.joiner.wiring import Wiring
from stream.joiner.work import Refusal, Work

NO_TIMESTAMP = -1
COLUMNS = (Columns(Impression), Columns(Action))


class Rows:
    """Events as a list of rows; None for one that is left to the codec or left out."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def left(self) -> list[int]:
        """See `Events`."""
        return [place for place, row in enumerate(self.rows) if row is None]

    def put(self, place: int, row: ImpressionRow | ActionRow) -> None:
        """See `Events`."""
        self.rows[place] = row

    def items(self) -> set[int]:
        """See `Events`."""
        return {row[ITEM] for row in self.rows if row is not None}

    def drop(self, items: set[int]) -> list[tuple[int, int]]:
        """See `Events`."""
        found = [(place, row[ITEM]) for place, row in enumerate(self.rows) if row is not None and row[ITEM] in items]
        for place, _ in found:
            self.rows[place] = None
        return found

    def newest_ms(self) -> int | None:
        """See `Events`."""
        return max([row[TIME_MS] for row in self.rows if row is not None], default=None)


class PlainJoin:
    """`Join`, and the bytes of what it gives out. See `Joining`."""

    def __init__(
        self,
        settings: JoinerSettings,
        wiring: Wiring,
        load_history: Callable[[int], History | None],
        watermark_ms: int,
    ) -> None:
        """`load_history` knows the histories of users of whom nothing is open."""
        self.open = Open()
        self._settings = settings
        self._wiring = wiring
        self._load_history = load_history
        self._join: Join[Message] = Join(settings, load_history, came_of)
        self._join.watermark_ms = watermark_ms
        self._written: Changes | None = None
        self._counted: dict[int, tuple[int, int, int]] = {}

    def read(self, source: int, values: Sequence[bytes | None], most: Mapping[str, int]) -> Rows:
        """See `Joining`."""
        return Rows(COLUMNS[source].read(values, most))

    def take(self, source: int, events: Rows, messages: Sequence[Message]) -> None:
        """See `Joining`."""
        take: Any = self._join.impression if source == IMPRESSIONS else self._join.action
        for row, message in zip(events.rows, messages, strict=True):
            if row is not None:
                take(row, message)

    def refuse(self, refusal: Refusal) -> None:
        """See `Joining`."""
        self._join.changes.refusals.append(refusal)

    def advance(self, watermark_ms: int) -> None:
        """See `Joining`."""
        self._join.advance(watermark_ms)

    def is_behind(self) -> bool:
        """See `Joining`."""
        return self._join.is_behind()

    def close_idle(self) -> bool:
        """See `Joining`."""
        return self._join.close_idle()

    def changed(self) -> int:
        """See `Joining`."""
        return len(self._join.changes.users)

    def has_changes(self) -> bool:
        """See `Joining`."""
        return bool(self._join.changes.users or self._join.changes.refusals)

    def write(self, work: Work) -> None:
        """See `Joining`."""
        self._written = changes = self._join.take_changes()
        for user in changes.users.values():
            self._write_user(user, work)
        for session in changes.sessions:
            encoded = self._wiring.session_codec.encode(session)
            work.sessions.append((id_key(session.user_id), encoded, max(1, session.end_ms)))
        tally = work.tally
        tally.events, tally.duplicates = changes.events, changes.duplicates
        tally.late_impressions, tally.refusals = changes.late_impressions, changes.refusals
        tally.closed.update(session.closed_by for session in changes.sessions)

    def stored(self) -> None:
        """See `Joining`."""
        if self._written is None:
            return
        for user_id, user in self._written.users.items():
            self._count(user_id, user)
        self._join.forget(self._written)
        self._written = None

    def restore(self, user_id: int, packed: bytes) -> None:
        """See `Joining`."""
        user = User.of(user_id, self._load_history(user_id))
        decode: Callable[[bytes], Action] = self._wiring.action_codec.decode
        unpack_user(user, packed, decode)
        self._join.restore(user)
        self._count(user_id, user)

    def _write_user(self, user: User, work: Work) -> None:
        key = id_key(user.user_id)
        if user.state_changed:
            user.state_changed = False
            idle = user.is_idle()
            if not idle:
                work.change(key, USER_PREFIX + key, pack_user(user, self._settings.history_items))
            elif user.stored:
                work.change(key, USER_PREFIX + key, None)
            user.stored = not idle
        if user.history_changed:
            user.history_changed = False
            record = user.history_record(self._settings.history_items)
            encoded = self._wiring.history_codec.encode(record)
            work.histories.append((key, encoded, max(1, record.updated_ms)))
            work.local.append((HISTORY_PREFIX + key, encoded))

    def _count(self, user_id: int, user: User) -> None:
        """Keep the sums of what is open without walking over all users."""
        before = self._counted.pop(user_id, (0, 0, 0))
        waiting = user.waiting_count() if user.waiting else 0
        now = (len(user.open), waiting, int(bool(user.session)))
        if now != (0, 0, 0):
            self._counted[user_id] = now
        self.open.impressions += now[0] - before[0]
        self.open.actions += now[1] - before[1]
        self.open.sessions += now[2] - before[2]


def came_of(message: Message) -> Came:
    """Where a message stood, and its bytes."""
    kind, timestamp_ms = message.timestamp()
    return Came(message.offset() or 0, timestamp_ms if kind else NO_TIMESTAMP, message.key(), message.value())
