"""What the joiner's state is restored from: points, users, the header with the input offsets."""

from __future__ import annotations

from onerec.errors import CheckFailedError
from onerec.settings import JoinerSettings
from stream.joiner.join import Join
from stream.joiner.state import Point, pack_user, unpack_user
from stream.joiner.transaction import pack_offsets, unpack_offsets
from stream.joiner.user import User
from stream.joiner.watermark import Watermark
from tests.stream.joiner.events import Event, action, feed, impression
from tests.stream.joiner.test_state import WIRING, came

RULES = JoinerSettings(session_items=3, session_gap_ms=40, feedback_window_ms=15, history_items=2)
POINT, USER, HEADER = range(3)


def users() -> list[bytes]:
    """A user with an open exposure, a session and a history beyond the kept one, and one whose action waits."""
    join: Join[Event] = Join(RULES, lambda _: None, came)
    events: list[Event] = [impression(item, 20 * item) for item in range(1, 6)]
    for event in [*events, action(9, 130, user=2)]:
        feed(join, event, event)
        join.advance(event.time_ms)
    return [pack_user(user, RULES.history_items) for user in join.users.values()]


SEEDS = [bytes((POINT,)) + Point.of((5, 2**40), Watermark([-(2**63), 17], -3)).pack()]
SEEDS += [bytes((USER,)) + packed for packed in users()] + [bytes((HEADER,)) + pack_offsets((1, 2))]


def target(data: bytes) -> None:
    """The first byte chooses; refused with a sentence, or read."""
    kind, rest = data[0] % 3 if data else POINT, data[1:]
    try:
        if kind == POINT:
            assert Point.unpack(rest).pack() == rest
        elif kind == USER:
            unpack_user(User.of(1, None), rest, WIRING.action_codec.decode)
        else:
            assert pack_offsets(unpack_offsets(rest)) == rest
    except CheckFailedError:
        return
