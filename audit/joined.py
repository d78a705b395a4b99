"""Sessions and histories of one partition against impressions and actions: what the joiner has made of them."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from confluent_kafka import Message

from audit.by_user import Longs
from audit.events import BEGINNING_MS, Done, EventReader, Events, Shown
from audit.findings import Findings, Kind
from audit.histories import Published
from audit.learned import Consumable
from audit.log import Log
from audit.matching import Found, Stream
from audit.refusals import Refusals
from audit.spool import Spool, places, user_of
from audit.user import UserAudit
from onerec.kafka.registry import codec
from onerec.kafka.watermarks import Bounds
from onerec.settings import Settings
from schemas.codec import DecodeError
from schemas.records import ClosedBy, History, Session
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, SESSIONS, Topic

GROUP = "joiner"
INPUTS = (IMPRESSIONS, ACTIONS)
OUTPUTS = (SESSIONS, HISTORIES)
JOINED_HEADER = "joined"
"""On a history that the joiner wrote; imported ones have none."""
MOST_MARKERS = 2
"""Offsets between two records that transaction markers may take; more, and compaction has removed records."""
LAST = 5
"""Columns of a session's last item: user, request, item, time, and whether the session was closed as idle."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was committed and where the topics ended, in this order, so that all that was committed lies within."""

    committed: Mapping[Topic, Mapping[int, int]]
    bounds: Mapping[tuple[str, int], Bounds]

    @classmethod
    def take(cls, log: Log, *more: Topic) -> Snapshot:
        """As of now; the ends of the joiner's outputs and of `more`."""
        committed = {topic: log.committed(GROUP, topic) for topic in INPUTS}
        return cls(committed, log.bounds(*OUTPUTS, *more))


class PartitionAudit:
    """Reads the outputs first, then the inputs: so everything that is used has been read."""

    def __init__(
        self, log: Log, settings: Settings, snapshot: Snapshot, findings: Findings, *, repeats_allowed: bool
    ) -> None:
        self._log, self._settings, self._snapshot, self._findings = log, settings, snapshot, findings
        self._joiner = settings.stream.joiner
        self._repeats_allowed = repeats_allowed
        self._sessions_codec = codec(settings.kafka, SESSIONS)
        self._histories_codec = codec(settings.kafka, HISTORIES)

    def run(self, partition: int, refusals: Refusals) -> Consumable:
        """Audit one partition; its sessions, for the audit of what was learned."""
        with closing(Spool()) as sessions, closing(Spool()) as histories:
            consumable, lasts = self._read_sessions(partition, sessions)
            users = sessions.seal()
            history_unknown, with_history = self._read_histories(partition, histories)
            histories.seal()
            users |= with_history
            maybe_to = {topic: self._log.committed(GROUP, topic)[partition] for topic in INPUTS}
            bounds = self._log.bounds(*INPUTS)
            shown, done = (self._events(topic, partition, bounds, maybe_to, refusals) for topic in INPUTS)
            stream = self._stream(shown, done, lasts)
            shown_by_user, done_by_user = shown.by_user(Shown), done.by_user(Done)
            users |= shown_by_user.users | done_by_user.users
            input_unknown = shown.begin > 0 or done.begin > 0
            if input_unknown:
                self._findings.notes.append(
                    f"impressions[{partition}] begins at offset {shown.begin}, actions[{partition}] at {done.begin}: "
                    "what was deleted before cannot be checked."
                )
            for user_id in sorted(users):
                UserAudit(
                    user_id=user_id,
                    partition=partition,
                    stream=stream,
                    findings=self._findings,
                    sessions=self._sessions_of(user_id, partition, sessions),
                    histories=self._histories_of(user_id, partition, histories),
                    shown=shown_by_user.of(user_id),
                    done=done_by_user.of(user_id),
                    history_unknown=history_unknown or input_unknown,
                    input_unknown=input_unknown,
                ).run()
            return consumable

    def _read_sessions(self, partition: int, spool: Spool) -> tuple[Consumable, Longs]:
        """Spool them; ids by offset, and the last item of each."""
        bounds = self._snapshot.bounds[SESSIONS.name, partition]
        offsets, ids, lasts = array("q"), array("q"), array("q")
        for offset, message in places(self._log.messages(SESSIONS, partition, bounds)):
            record = self._decoded(SESSIONS, message, partition)
            offsets.append(offset)
            ids.append(-1 if record is None else record.session_id)
            if record is None:
                continue
            spool.add(record.user_id, offset, message.value() or b"")
            last, idle = record.items[-1], record.closed_by is ClosedBy.IDLE
            lasts.extend((record.user_id, last.request_id, last.item_id, last.time_ms, idle))
        consumable = Consumable(np.frombuffer(offsets, np.int64), np.frombuffer(ids, np.int64))
        return consumable, np.frombuffer(lasts, np.int64).reshape(-1, LAST)

    def _read_histories(self, partition: int, spool: Spool) -> tuple[bool, set[int]]:
        """Spool them; whether records may have been compacted away, and the users of whom the joiner wrote one."""
        low, high = self._snapshot.bounds[HISTORIES.name, partition]
        compacted, before, importing = low > 0, low - 1, True
        users: set[int] = set()
        for offset, message in places(self._log.messages(HISTORIES, partition, (low, high))):
            joined = any(header[0] == JOINED_HEADER for header in message.headers() or ())
            importing = importing and not joined
            # An import is no transaction: between two of its records nothing but compaction leaves a gap.
            compacted |= offset - before > (1 if importing else MOST_MARKERS)
            before = offset
            user_id = user_of(message)
            if user_id is None:
                self._findings.add(
                    HISTORIES.name, Kind.WRONG, (HISTORIES.name, partition, offset), "its key is no user"
                )
            elif message.value() is not None:
                spool.add(user_id, offset, message.value() or b"", int(joined))
                if joined:
                    users.add(user_id)
        return compacted, users

    def _events(
        self,
        topic: Topic,
        partition: int,
        bounds: Mapping[tuple[str, int], Bounds],
        maybe_to: Mapping[Topic, int],
        refusals: Refusals,
    ) -> Events:
        low, high = bounds[topic.name, partition]
        reader = EventReader(topic, partition, codec(self._settings.kafka, topic), self._joiner, self._findings)
        return reader.read(
            self._log.messages(topic, partition, (low, high)),
            refusals.of(GROUP, topic.name, partition),
            low,
            self._snapshot.committed[topic][partition],
            maybe_to[topic],
        )

    def _stream(self, shown: Events, done: Events, lasts: Longs) -> Stream:
        both = min(shown.newest_ms, done.newest_ms)
        newest_ms = max(shown.newest_ever_ms, done.newest_ever_ms)
        closes_ms = lasts[:, 3] + self._joiner.feedback_window_ms + self._joiner.allowed_lateness_ms
        idle = _came_at(shown, lasts[lasts[:, 4] > 0])
        # Out before the watermark of any event can have passed its window: the inputs had stood still.
        soon = _came_at(shown, lasts[closes_ms > newest_ms])
        return Stream(
            settings=self._joiner,
            passed_ms=both - self._joiner.allowed_lateness_ms if both > BEGINNING_MS else BEGINNING_MS,
            newest_ms=newest_ms,
            newest_shown_ms=shown.newest_ever_ms,
            shown_joined_to=shown.joined_to,
            shown_maybe_to=shown.maybe_to,
            done_joined_to=done.joined_to,
            done_maybe_to=done.maybe_to,
            standstill=int(np.concatenate((idle, soon)).min(initial=sys.maxsize - 1)) + 1,
            settled=0 if self._repeats_allowed else int(idle.max(initial=-1)) + 1,
            repeats_allowed=self._repeats_allowed,
        )

    def _sessions_of(self, user_id: int, partition: int, spool: Spool) -> list[Found]:
        """A user's sessions, each id once: the first, as readers do, or the last where the first may be aborted."""
        by_id: dict[int, tuple[Found, bytes]] = {}
        for offset, value, _ in spool.of(user_id):
            session: Session = self._sessions_codec.decode(value)
            before = by_id.get(session.session_id)
            if before is None or (self._repeats_allowed and before[1] != value):
                by_id.pop(session.session_id, None)
                by_id[session.session_id] = Found(offset, session), value
            if before is not None:
                like = "as" if before[1] == value else "with other content than"
                detail = f"session {session.session_id} again, {like} {SESSIONS.name}[{partition}]@{before[0].offset}"
                kind = Kind.REPEATED if self._repeats_allowed else Kind.DOUBLE
                self._findings.add(SESSIONS.name, kind, (SESSIONS.name, partition, offset), detail)
        return [found for found, _ in by_id.values()]

    def _histories_of(self, user_id: int, partition: int, spool: Spool) -> list[Published]:
        published = []
        for offset, value, joined in spool.of(user_id):
            try:
                record: History = self._histories_codec.decode(value)
            except DecodeError as error:
                self._findings.add(HISTORIES.name, Kind.WRONG, (HISTORIES.name, partition, offset), str(error))
                continue
            if record.user_id != user_id:
                detail = f"its key is {user_id}, but it is of user {record.user_id}"
                self._findings.add(HISTORIES.name, Kind.WRONG, (HISTORIES.name, partition, offset), detail)
                continue
            published.append(Published(offset, record, bool(joined)))
        return published

    def _decoded(self, topic: Topic, message: Message, partition: int) -> Session | None:
        offset = message.offset() or 0
        try:
            record: Session = self._sessions_codec.decode(message.value())
        except DecodeError as error:
            self._findings.add(topic.name, Kind.WRONG, (topic.name, partition, offset), str(error))
            return None
        if user_of(message) != record.user_id or not record.items:
            detail = f"key {message.key()!r}, user {record.user_id}, {len(record.items)} items do not fit together"
            self._findings.add(topic.name, Kind.WRONG, (topic.name, partition, offset), detail)
            return None
        return record


def _came_at(shown: Events, lasts: Longs) -> Longs:
    """Offsets of the impressions that are these last items of sessions."""
    by_user = shown.by_user(Shown)
    offsets = [
        next((row.offset for row in by_user.of(user_id) if row[2:5] == key), None)
        for user_id, *key_and_idle in lasts.tolist()
        if (key := tuple(key_and_idle[:3]))
    ]
    return np.array([offset for offset in offsets if offset is not None], np.int64)
