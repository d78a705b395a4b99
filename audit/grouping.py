"""Which sessions exposures must make that are in none, by the documented rules: m items, or a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.exposure import Exposure, session_id
from audit.matching import Found, Stream


@dataclass(frozen=True, slots=True)
class Absent:
    """A session that must exist and does not."""

    exposures: list[Exposure]

    @property
    def name(self) -> str:
        """What it would be, for a person."""
        first = self.exposures[0].shown
        identifier = session_id(first.user_id, first.request_id, first.item_id, first.time_ms)
        return f"session {identifier} of user {first.user_id} with {len(self.exposures)} items"

    @property
    def start_ms(self) -> int:
        """Event time of the first exposure."""
        return self.exposures[0].shown.time_ms


@dataclass(slots=True)
class Leftover:
    """What is to be said of exposures that are in no session."""

    lost: list[tuple[Exposure, Found]]
    """They belong into a session that is there."""
    absent: list[Absent]
    making: list[Exposure]
    """Of the session in the making, or still open."""


def leftover(left: Sequence[Exposure], sessions: Sequence[Found], stream: Stream) -> Leftover:
    """Say it of `left`, certainly joined exposures in order of event time."""
    result = Leftover([], [], [])
    newest_ms = max((found.session.end_ms for found in sessions), default=None)
    behind = [e for e in left if newest_ms is not None and e.shown.time_ms < newest_ms]
    tail = [e for e in left if newest_ms is None or e.shown.time_ms >= newest_ms]
    outside = []
    for exposure in behind:
        home = _home(exposure, sessions)
        if home is None:
            outside.append(exposure)
        else:
            result.lost.append((exposure, home))
    result.absent += [Absent(group) for group in _groups(outside, sessions, stream)]
    _take_tail(tail, stream, result)
    return result


def _home(exposure: Exposure, sessions: Sequence[Found]) -> Found | None:
    """The session among whose items an exposure lies in time."""
    at = exposure.order
    for found in sessions:
        orders = [(item.time_ms, item.request_id, item.position, item.item_id) for item in found.session.items]
        if orders[0] < at < orders[-1]:
            return found
    return None


def _groups(exposures: Sequence[Exposure], sessions: Sequence[Found], stream: Stream) -> list[list[Exposure]]:
    """Cut into sessions, also where one that is there lies between."""
    starts = sorted(found.session.start_ms for found in sessions)
    groups: list[list[Exposure]] = []
    for exposure in exposures:
        before = groups[-1][-1].shown if groups else None
        if (
            before is None
            or len(groups[-1]) == stream.settings.session_items
            or exposure.shown.time_ms - before.time_ms >= stream.settings.session_gap_ms
            or any(before.time_ms < start <= exposure.shown.time_ms for start in starts)
        ):
            groups.append([])
        groups[-1].append(exposure)
    return groups


def _take_tail(tail: Sequence[Exposure], stream: Stream, result: Leftover) -> None:
    """After the last session: what the watermark has certainly closed must be out."""
    settings = stream.settings
    closed = [e for e in tail if stream.has_passed(e.shown.time_ms) or e.shown.offset < stream.settled]
    making: list[Exposure] = []
    for exposure in closed:
        if making and exposure.shown.time_ms - making[-1].shown.time_ms >= settings.session_gap_ms:
            result.absent.append(Absent(making))
            making = []
        making.append(exposure)
        if len(making) == settings.session_items:
            result.absent.append(Absent(making))
            making = []
    waiting = [exposure for exposure in tail if exposure not in closed]
    if making:
        gap_ms = making[-1].shown.time_ms + settings.session_gap_ms
        next_ms = waiting[0].shown.time_ms if waiting else stream.passed_ms
        settled = all(exposure.shown.offset < stream.settled for exposure in making)
        if gap_ms <= min(stream.passed_ms, next_ms) or settled:
            result.absent.append(Absent(making))
            making = []
    result.making = [*making, *waiting]
