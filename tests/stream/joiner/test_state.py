"""The joiner's state survives its bytes, at any point of any story."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onerec.errors import CheckFailedError
from onerec.settings import JoinerSettings, KafkaSettings
from schemas.records import Action, Impression
from stream.joiner.exposure import Came
from stream.joiner.join import Join
from stream.joiner.state import Point, pack_user, unpack_user
from stream.joiner.transaction import pack_offsets, unpack_offsets
from stream.joiner.user import User
from stream.joiner.watermark import Watermark
from stream.joiner.wiring import names
from tests.stream.joiner.events import Event, action, delivered, feed, impression, visits

RULES = JoinerSettings(session_items=3, session_gap_ms=40, feedback_window_ms=15, history_items=2)
WIRING = names(KafkaSettings(), "cluster", ())


def came(event: Event) -> Came:
    codec = WIRING.impression_codec if isinstance(event, Impression) else WIRING.action_codec
    return Came(7, 8, b"1", codec.encode(event))


def facts(user: User) -> dict[str, Any]:
    """All of a user but what is only kept to save time."""
    for exposure in (*user.open.values(), *user.session):
        exposure.packed = None
    history = user.history
    return {
        "open": sorted(user.open.items()),
        "waiting": user.waiting,
        "session": user.session,
        "history": (history.items, history.times_ms, history.labels),
    }


@hypothesis_settings(max_examples=150, deadline=None)
@given(events=visits(span_ms=120, window_ms=15), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_a_user_comes_back_from_history_and_state(events: list[Event], seed: int, share: float) -> None:
    join: Join[Event] = Join(RULES, lambda _: None, came)
    arrived = delivered(events, 0, seed)[: int(len(events) * share)]
    for event in arrived:
        feed(join, event, event)
        join.advance(event.time_ms)

    for user in join.users.values():
        restored = User.of(user.user_id, user.history_record(RULES.history_items))
        unpack_user(restored, pack_user(user, RULES.history_items), WIRING.action_codec.decode)

        assert facts(restored) == facts(user)
        restored.reschedule(RULES)
        user.reschedule(RULES)
        assert restored.due_ms == user.due_ms


@given(
    item=st.integers(0, 2**63 - 1),
    position=st.integers(0, 2**31 - 1),
    version=st.none() | st.integers(0, 2**63 - 1),
)
def test_fields_keep_their_whole_range(item: int, position: int, version: int | None) -> None:
    join: Join[Event] = Join(RULES, lambda _: None, came)
    record = Impression(
        request_id=item, user_id=1, item_id=item, position=position, time_ms=5, model_version=version, produced_ms=item
    )
    feed(join, record, record)
    user = join.users[1]
    restored = User.of(1, None)

    unpack_user(restored, pack_user(user, 2), WIRING.action_codec.decode)

    assert facts(restored) == facts(user)


def test_a_point_comes_back() -> None:
    point = Point.of((5, 2**40), Watermark([-(2**63), 17], -3))

    assert Point.unpack(point.pack()) == point
    assert point.watermark() == Watermark([-(2**63), 17], -3)


def test_bytes_of_another_version_are_refused_with_the_remedy() -> None:
    join: Join[Event] = Join(RULES, lambda _: None, came)
    feed(join, impression(1, 5))
    newer = b"\x63" + pack_user(join.users[1], 2)[1:]

    with pytest.raises(CheckFailedError, match="version 99"):
        unpack_user(User.of(1, None), newer, _never)


@pytest.mark.parametrize("size", [1, 17, 40, -1])
def test_a_state_that_is_cut_short_is_refused_with_the_remedy(size: int) -> None:
    join: Join[Event] = Join(RULES, lambda _: None, came)
    waits = action(1, 5)
    feed(join, waits, waits)
    for data, read in (
        (pack_user(join.users[1], 2), lambda cut: unpack_user(User.of(1, None), cut, WIRING.action_codec.decode)),
        (Point.of((5, 6), Watermark()).pack(), Point.unpack),
    ):
        with pytest.raises(CheckFailedError, match=r"no state of this joiner.*See who else writes"):
            read(data[:size])
    with pytest.raises(CheckFailedError, match="the header 'joined' of 15 bytes, 16 are right"):
        unpack_offsets(pack_offsets((1, 2))[:15])


def _never(_: bytes) -> Action:
    raise AssertionError("nothing waits")
