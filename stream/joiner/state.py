"""The joiner's state as bytes: a user's, and a partition's. Versioned, little-endian, private to the joiner.

The history is not part of it, it has its own topic; only what the open session has pushed out of it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onerec.errors import CheckFailedError
from schemas.codec import DecodeError
from schemas.records import Action
from stream.joiner.exposure import Came, Exposure, Waiting
from stream.joiner.history import ExposureHistory
from stream.joiner.rows import action_row
from stream.joiner.user import User
from stream.joiner.watermark import Watermark

VERSION = 1
_COUNTS = struct.Struct("<BIIII")
_EXPOSURE = struct.Struct("<qqqq?qqBqq")
_CAME = struct.Struct("<qqii")
_NO_KEY = -1
_NOTHING = ExposureHistory()
_POINT = struct.Struct("<B5q")


@dataclass(frozen=True, slots=True)
class Point:
    """Where a partition stands: the next input offsets (impressions, actions) and its event time."""

    next_offsets: tuple[int, int]
    newest_ms: tuple[int, int]
    watermark_ms: int

    @classmethod
    def of(cls, next_offsets: tuple[int, int], watermark: Watermark) -> Point:
        """The point of this event time."""
        impressions_ms, actions_ms = watermark.newest_ms
        return cls(next_offsets, (impressions_ms, actions_ms), watermark.value_ms)

    def watermark(self) -> Watermark:
        """The event time, to go on from."""
        return Watermark(list(self.newest_ms), self.watermark_ms)

    def pack(self) -> bytes:
        """The bytes."""
        return _POINT.pack(VERSION, *self.next_offsets, *self.newest_ms, self.watermark_ms)

    @classmethod
    def unpack(cls, data: bytes) -> Point:
        """The point of these bytes. Raises CheckFailedError for another version and for what is no point."""
        _check_version(data)
        try:
            _, impressions, actions, impressions_ms, actions_ms, watermark_ms = _POINT.unpack(data)
        except struct.error as error:
            raise damaged(error) from error
        return cls((impressions, actions), (impressions_ms, actions_ms), watermark_ms)


def pack_user(user: User, history_items: int) -> bytes:
    """All of a user but the newest `history_items` of the history."""
    waiting = [one for actions in user.waiting.values() for one in actions] if user.waiting else []
    surplus = len(user.history) - history_items
    beyond = user.history.part(0, surplus) if surplus > 0 else _NOTHING
    parts = [
        _COUNTS.pack(VERSION, len(user.open), len(waiting), len(user.session), len(beyond)),
        *[exposure.packed or _pack_exposure(exposure) for exposure in user.open.values()],
        *[exposure.packed or _pack_exposure(exposure) for exposure in user.session],
        beyond.items,
        beyond.times_ms,
        beyond.labels,
        *(_pack_came(one.came) for one in waiting),
    ]
    return b"".join(parts)


def unpack_user(user: User, data: bytes, decode_action: Callable[[bytes], Action]) -> None:
    """Give a user, who has its history already, what these bytes hold. Raises CheckFailedError as `Point.unpack`."""
    _check_version(data)
    try:
        _unpack_user(user, data, decode_action)
    except (struct.error, DecodeError) as error:
        raise damaged(error) from error


def check_user(data: bytes) -> None:
    """Raises CheckFailedError for another version, as `unpack_user`."""
    _check_version(data)


def waiting_of(data: bytes, decode_action: Callable[[bytes], Action]) -> list[Action]:
    """The actions that wait, in the order in which they are packed. Raises CheckFailedError as `unpack_user`."""
    try:
        _, open_count, waiting_count, session_count, beyond_count = _COUNTS.unpack_from(data)
        if not waiting_count:
            return []
        at = _COUNTS.size + _EXPOSURE.size * (open_count + session_count) + 17 * beyond_count
        return [decode_action(came.value or b"") for came in _cames(data, at, waiting_count)]
    except (struct.error, DecodeError) as error:
        raise damaged(error) from error


def _unpack_user(user: User, data: bytes, decode_action: Callable[[bytes], Action]) -> None:
    _, open_count, waiting_count, session_count, beyond_count = _COUNTS.unpack_from(data)
    at = _COUNTS.size
    exposures = []
    for _ in range(open_count + session_count):
        exposures.append(_unpack_exposure(data, at))
        at += _EXPOSURE.size
    items_end, times_end = at + 8 * beyond_count, at + 16 * beyond_count
    at = times_end + beyond_count
    user.history = ExposureHistory(
        data[items_end - 8 * beyond_count : items_end] + user.history.items,
        data[items_end:times_end] + user.history.times_ms,
        data[times_end:at] + user.history.labels,
    )
    user.open = {exposure.key: exposure for exposure in exposures[:open_count]}
    user.session = exposures[open_count:]
    user.stored = True
    for came in _cames(data, at, waiting_count):
        record = decode_action(came.value or b"")
        key = (record.request_id, record.item_id)
        user.waiting.setdefault(key, []).append(Waiting(action_row(record), came))


def _pack_exposure(exposure: Exposure) -> bytes:
    version = exposure.model_version
    exposure.packed = _EXPOSURE.pack(
        exposure.request_id,
        exposure.item_id,
        exposure.position,
        exposure.time_ms,
        version is not None,
        version or 0,
        exposure.produced_ms,
        exposure.kinds,
        exposure.watch_ms,
        exposure.duration_ms,
    )
    return exposure.packed


def _unpack_exposure(data: bytes, at: int) -> Exposure:
    request_id, item_id, position, time_ms, has_version, version, *rest = _EXPOSURE.unpack_from(data, at)
    return Exposure(request_id, item_id, position, time_ms, version if has_version else None, *rest)


def _pack_came(came: Came) -> bytes:
    key = came.key or b""
    value = came.value or b""  # an action that waits has been decoded, so it has one
    sizes = (_NO_KEY if came.key is None else len(key), len(value))
    return _CAME.pack(came.offset, came.timestamp_ms, *sizes) + key + value


def _cames(data: bytes, at: int, count: int) -> Iterator[Came]:
    for _ in range(count):
        came, at = _unpack_came(data, at)
        yield came


def _unpack_came(data: bytes, at: int) -> tuple[Came, int]:
    offset, timestamp_ms, key_size, value_size = _CAME.unpack_from(data, at)
    at += _CAME.size
    key = None if key_size == _NO_KEY else data[at : at + key_size]
    at += max(0, key_size)
    return Came(offset, timestamp_ms, key, data[at : at + value_size]), at + value_size


def damaged(error: Exception) -> CheckFailedError:
    """What is said of bytes that are no state."""
    return CheckFailedError(
        f"A record of the joiner's changelog holds no state of this joiner: {error}.",
        "See who else writes to it; to begin anew, delete the topic joiner-changelog and reset the joiner's group.",
    )


def _check_version(data: bytes) -> None:
    if data[:1] != bytes((VERSION,)):
        raise CheckFailedError(
            f"The joiner's changelog is of version {data[0] if data else 'none'}, this joiner knows {VERSION}.",
            "Run the joiner that wrote it, or delete the topic joiner-changelog and reset the joiner's group.",
        )
