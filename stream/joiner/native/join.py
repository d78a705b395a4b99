"""The compiled join of one partition, as a partition drives it."""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from confluent_kafka import Message

from onerec.settings import JoinerSettings
from schemas.packed import LONG_BYTES
from schemas.records import ClosedBy, History
from schemas.topics import ACTIONS, IMPRESSIONS
from stream.joiner.exposure import Came
from stream.joiner.join import MOST_OPEN, MOST_USERS
from stream.joiner.joining import HISTORY_PREFIX, USER_PREFIX, Open
from stream.joiner.native.binding import REASONS, REFUSAL, Batch, Functions, Rules, View
from stream.joiner.native.events import NativeEvents, packed_row
from stream.joiner.plain import NO_TIMESTAMP, came_of
from stream.joiner.rows import action_row
from stream.joiner.state import check_user, damaged, waiting_of
from stream.joiner.watermark import ACTIONS as ACTION_INPUT
from stream.joiner.wiring import Wiring
from stream.joiner.work import Record, Refusal, Work

LOG = logging.getLogger(__name__)
TOMBSTONE = -1
CLOSED_BY = tuple(ClosedBy)
SOURCES = (IMPRESSIONS.name, ACTIONS.name)
LARGEST_SETTING = 2**60
"""Sums of times, of which each is no larger, fit 64 bits."""


def fits(settings: JoinerSettings) -> bool:
    """Whether the compiled join can keep these rules: its numbers have 64 bits, those of Python have no bounds."""
    spans = (
        *(settings.session_gap_ms, settings.feedback_window_ms, settings.allowed_lateness_ms, settings.max_future_ms),
        *(settings.labels.long_view_ms, settings.labels.clock_ms, settings.high_quality.min_watched),
        settings.high_quality.min_total_watch_ms,
    )
    return max(spans) <= LARGEST_SETTING and settings.max_watch_ms * settings.session_items <= LARGEST_SETTING


class NativeJoin:
    """See `Joining`."""

    def __init__(
        self,
        functions: Functions,
        settings: JoinerSettings,
        wiring: Wiring,
        load_history: Callable[[int], History | None],
        watermark_ms: int,
    ) -> None:
        """`load_history` knows the histories of users of whom nothing is open; `settings` fit."""
        self.open = Open()
        self._functions = functions
        self._wiring = wiring
        self._load_history = load_history
        self._join = functions.new(ctypes.byref(_rules(settings)))
        weakref.finalize(self, functions.free, self._join)
        self._refusals: list[Refusal] = []
        self._written = False
        functions.advance(self._join, watermark_ms, 0)

    def read(self, source: int, values: Sequence[bytes | None], most: Mapping[str, int]) -> NativeEvents:
        """See `Joining`."""
        return NativeEvents(self._functions, source, values, most)

    def take(self, source: int, events: NativeEvents, messages: Sequence[Message]) -> None:
        """See `Joining`."""
        count, rows, good = events.count, events.rows.ctypes.data, events.good.ctypes.data
        new = np.empty(count, np.int64)
        found = self._functions.welcome(self._join, rows, good, count, new.ctypes.data)
        for user_id in new[:found].tolist():
            self._give_history(user_id)
        batch = _batch(events, messages) if source == ACTION_INPUT else None
        if self._functions.take(self._join, source, rows, good, count, ctypes.byref(batch) if batch else None):
            self._collect_refusals(messages)

    def refuse(self, refusal: Refusal) -> None:
        """See `Joining`."""
        self._refusals.append(refusal)

    def advance(self, watermark_ms: int) -> None:
        """See `Joining`."""
        self._functions.advance(self._join, watermark_ms, MOST_USERS)

    def is_behind(self) -> bool:
        """See `Joining`."""
        return bool(self._functions.is_behind(self._join))

    def close_idle(self) -> bool:
        """See `Joining`."""
        return bool(self._functions.close_idle(self._join, MOST_USERS))

    def changed(self) -> int:
        """See `Joining`."""
        return self._functions.touched(self._join)

    def has_changes(self) -> bool:
        """See `Joining`."""
        return bool(self._refusals) or self.changed() > 0

    def write(self, work: Work) -> None:
        """See `Joining`."""
        views, counts = (View * 3)(), (ctypes.c_int64 * 6)()
        headers = (self._wiring.session_codec.header(), self._wiring.history_codec.header())
        sized = [part for header in headers for part in (header, len(header))]
        self._functions.write(self._join, *sized, views, counts)
        work.sessions, work.histories, work.changelog = map(_records, views)
        self._functions.clear(self._join)
        work.local = [(USER_PREFIX + key, value) for key, value, _ in work.changelog]  # type: ignore[operator]
        work.local += [(HISTORY_PREFIX + key, value) for key, value, _ in work.histories]  # type: ignore[operator]
        self._collect_refusals(())
        tally = work.tally
        tally.events, tally.late_impressions, tally.duplicates, *closed = counts
        tally.closed.update({kind: count for kind, count in zip(CLOSED_BY, closed, strict=True) if count})
        tally.refusals, self._refusals = self._refusals, []
        self._written = True

    def stored(self) -> None:
        """See `Joining`."""
        if self._written:
            self._written = False
            self._count(self._functions.forget)

    def restore(self, user_id: int, packed: bytes) -> None:
        """See `Joining`."""
        check_user(packed)
        self._give_history(user_id)
        waiting = waiting_of(packed, self._wiring.action_codec.decode)
        rows = np.array([packed_row(ACTION_INPUT, action_row(action)) for action in waiting], np.int64)
        if not self._functions.restore(self._join, user_id, packed, len(packed), rows.ctypes.data, len(waiting)):
            raise damaged(ValueError("it is cut short"))
        self._count(self._functions.open)

    def _give_history(self, user_id: int) -> None:
        """Tell of a new user's history, where there is one."""
        record = self._load_history(user_id)
        if record is None:
            return
        items, times_ms, labels = record.history_items, record.history_times_ms, record.history_labels
        if not len(items) == len(times_ms) == LONG_BYTES * len(labels):
            LOG.warning("the stored history of user %d is none: its lists differ in length; it begins anew", user_id)
            items = times_ms = labels = b""
        self._functions.history(self._join, user_id, items, times_ms, labels, len(labels), record.updated_ms)

    def _collect_refusals(self, messages: Sequence[Message]) -> None:
        """Take over what the join has refused; those it names by their place are of these messages."""
        address, data, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int64()
        count = self._functions.refusals(self._join, *map(ctypes.byref, (address, data, size)))
        if not count:
            return
        kept = ctypes.string_at(data, size.value) if size.value else b""
        fields = np.frombuffer(ctypes.string_at(address, LONG_BYTES * REFUSAL * count), np.int64).tolist()
        for at in range(0, len(fields), REFUSAL):
            source, why, item, place, offset, timestamp_ms, key, key_size, value, value_size = fields[at : at + REFUSAL]
            if place >= 0:
                came = came_of(messages[place])
            else:
                came_key = kept[key : key + key_size] if key_size >= 0 else None
                came = Came(offset, timestamp_ms, came_key, kept[value : value + value_size])
            reason, detail = REASONS[why]
            self._refusals.append(Refusal(SOURCES[source], came, reason, detail.format(item=item, most=MOST_OPEN)))
        self._functions.clear_refusals(self._join)

    def _count(self, function: Callable[..., None]) -> None:
        counts = (ctypes.c_int64 * 3)()
        function(self._join, counts)
        self.open.impressions, self.open.actions, self.open.sessions = counts


def _rules(settings: JoinerSettings) -> Rules:
    labels, quality = settings.labels, settings.high_quality
    return Rules(
        session_items=settings.session_items,
        session_gap_ms=settings.session_gap_ms,
        window_ms=settings.feedback_window_ms,
        history_items=settings.history_items,
        most_open=MOST_OPEN,
        long_view_ms=labels.long_view_ms,
        clock_ms=labels.clock_ms,
        short_video_share=labels.short_video_share,
        min_watched=quality.min_watched,
        min_total_watch_ms=quality.min_total_watch_ms,
        need_interaction=quality.need_interaction,
        need_all=quality.combine == "all",
    )


class _KeptBatch(Batch):
    """A batch with the arrays that it points to."""

    kept: tuple[object, ...]


def _batch(events: NativeEvents, messages: Sequence[Message]) -> Batch:
    """Where actions stood, and their bytes: what a dead letter holds where one waits for nothing."""
    keys = [message.key() for message in messages]
    whole = [key or b"" for key in keys] if None in keys else keys
    key_sizes = np.fromiter([NO_KEY if key is None else len(key) for key in keys], np.int64, events.count)
    first, last = messages[0].offset() or 0, messages[-1].offset() or 0
    if last - first == events.count - 1:
        offsets = np.arange(first, last + 1, dtype=np.int64)
    else:  # transaction markers or compaction have left gaps
        offsets = np.fromiter([message.offset() or 0 for message in messages], np.int64, events.count)
    stamps = [message.timestamp() for message in messages]
    stamps_ms = np.fromiter([time_ms if kind else NO_TIMESTAMP for kind, time_ms in stamps], np.int64, events.count)
    joined = b"".join(whole)  # type: ignore[arg-type]
    batch = _KeptBatch(
        joined,
        key_sizes.ctypes.data,
        events.values,
        events.sizes.ctypes.data,
        offsets.ctypes.data,
        stamps_ms.ctypes.data,
    )
    batch.kept = (joined, key_sizes, events, offsets, stamps_ms)
    return batch


NO_KEY = -1


def _records(view: View) -> list[Record]:
    """The records of a view, copied."""
    if not view.count:
        return []
    users, begins, ends, times_ms = (
        (ctypes.c_int64 * view.count).from_address(address)[:]
        for address in (view.users, view.begins, view.ends, view.times_ms)
    )
    data = ctypes.string_at(view.bytes, view.size) if view.size else b""
    values = [None if end == TOMBSTONE else data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return list(zip([b"%d" % user for user in users], values, times_ms, strict=True))
