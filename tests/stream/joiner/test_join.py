"""The pure join against an oracle that sees all events at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onerec.settings import JoinerSettings
from schemas.packed import unpack_longs
from schemas.records import ActionKind, ClosedBy, Session
from stream.joiner.watermark import Watermark
from tests.stream.joiner.events import Event, Results, action, delivered, feed, impression, new_join, view, visits
from tests.stream.joiner.oracle import ExpectedItem, ExpectedSession, expected

SETTINGS = JoinerSettings(
    session_items=3, session_gap_ms=40, feedback_window_ms=15, history_items=4, allowed_lateness_ms=10
)
END_MS = 1_000_000


def run(events: list[Event], rules: JoinerSettings, *, batch: int = 1) -> Results:
    """All events in this order, the watermark after every `batch`, then everything falls due."""
    join = new_join(rules)
    watermark = Watermark()
    results = Results()
    for number, event in enumerate(events):
        feed(join, event)
        watermark.newest_ms = [max(newest, event.time_ms) for newest in watermark.newest_ms]
        if number % batch == 0:
            join.advance(watermark.advance(rules.allowed_lateness_ms))
    join.advance(END_MS)
    results.add(join.take_changes(), rules.history_items)
    return results


def entries(record: Any) -> tuple[tuple[int, int, int], ...]:
    items, times = unpack_longs(record.history_items), unpack_longs(record.history_times_ms)
    return tuple(zip(items, times, record.history_labels, strict=True))


def plain(session: Session) -> ExpectedSession:
    items = tuple(
        ExpectedItem(
            item.item_id,
            item.request_id,
            item.position,
            item.time_ms,
            item.watch_ms,
            item.duration_ms,
            item.labels,
            item.produced_ms,
        )
        for item in session.items
    )
    return ExpectedSession(session.user_id, entries(session), items)


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    events=visits(span_ms=200, window_ms=SETTINGS.feedback_window_ms), seed=st.integers(0, 999), batch=st.integers(1, 9)
)
def test_any_order_within_the_lateness_gives_what_the_events_alone_decide(
    events: list[Event], seed: int, batch: int
) -> None:
    wanted = expected(events, SETTINGS)

    results = run(delivered(events, SETTINGS.allowed_lateness_ms, seed), SETTINGS, batch=batch)

    assert {plain(session) for session in results.sessions} == wanted.sessions
    assert len(results.sessions) == len(wanted.sessions)
    assert {user: entries(record) for user, record in results.histories.items()} == wanted.histories
    assert results.refused.count(("actions", "late")) == wanted.late
    assert results.refused.count(("actions", "orphan")) == wanted.orphans
    assert results.late_impressions == 0


@hypothesis_settings(max_examples=200, deadline=None)
@given(events=visits(span_ms=200, window_ms=15), order=st.randoms(use_true_random=False))
def test_whatever_the_order_every_impression_is_in_one_session_or_refused(events: list[Event], order: Any) -> None:
    shown = {(e.user_id, e.request_id, e.item_id) for e in events if hasattr(e, "position")}
    shuffled = list(events)
    order.shuffle(shuffled)

    results = run(shuffled, SETTINGS)

    joined = [(s.user_id, item.request_id, item.item_id) for s in results.sessions for item in s.items]
    refused = results.refused.count(("impressions", "late"))
    assert len(joined) == len(set(joined))
    assert set(joined) <= shown
    assert len(joined) + refused + results.duplicates >= len(shown)
    for session in results.sessions:
        times = [item.time_ms for item in session.items]
        assert times == sorted(times)
        assert all(after - before < SETTINGS.session_gap_ms for before, after in pairwise(times))
        assert all(time_ms <= times[0] for _, time_ms, _ in entries(session))


@hypothesis_settings(max_examples=100, deadline=None)
@given(events=visits(span_ms=100, window_ms=15), seed=st.integers(0, 99))
def test_repeated_events_change_nothing(events: list[Event], seed: int) -> None:
    once = run(delivered(events, 5, seed), SETTINGS)
    twice = run(delivered(events + events, 5, seed), SETTINGS)

    assert {plain(session) for session in twice.sessions} == {plain(session) for session in once.sessions}
    assert len(twice.sessions) == len(once.sessions)
    assert twice.histories == once.histories
    assert sorted(twice.refused) == sorted(once.refused) or twice.duplicates > 0


def only(results: Results) -> Session:
    (session,) = results.sessions
    return session


def test_a_session_closes_at_m_items_as_soon_as_the_last_ones_window_has_passed() -> None:
    join = new_join(SETTINGS)
    for item in (1, 2, 3):
        feed(join, impression(item, item))
    join.advance(3 + 14)
    assert join.changes.sessions == []

    join.advance(3 + 15)

    (session,) = join.changes.sessions
    assert [item.item_id for item in session.items] == [1, 2, 3]
    assert session.closed_by is ClosedBy.FULL
    assert (session.start_ms, session.end_ms, session.model_version) == (1, 3, 3)


def test_an_incomplete_session_closes_when_its_gap_has_passed() -> None:
    join = new_join(SETTINGS)
    feed(join, impression(1, 100))
    join.advance(139)
    assert join.changes.sessions == []

    join.advance(140)

    (session,) = join.changes.sessions
    assert session.closed_by is ClosedBy.GAP


def test_an_open_impression_within_the_gap_holds_the_session_open() -> None:
    join = new_join(SETTINGS)
    feed(join, impression(1, 100))
    feed(join, impression(2, 139))
    join.advance(145)
    assert join.changes.sessions == []

    join.advance(139 + 40)

    (session,) = join.changes.sessions
    assert [item.item_id for item in session.items] == [1, 2]


def test_labels_and_watch_time_come_from_the_actions_of_the_window() -> None:
    events: list[Event] = [
        impression(7, 100),
        view(7, 101, 19_999),
        view(7, 102, 20_000),
        action(7, 103, ActionKind.FOLLOW),
        action(7, 116, ActionKind.SHARE),
    ]

    results = run(events, SETTINGS)

    (item,) = only(results).items
    assert (item.watch_ms, item.duration_ms, item.labels) == (20_000, 20_000, 1 + 4)
    assert item.produced_ms == 20_000 + 103
    assert results.refused == [("actions", "late")]
    assert entries(results.histories[1]) == ((7, 100, 1 + 4 + 16),)


def test_actions_before_their_impression_wait_for_it_and_become_orphans_where_it_never_comes() -> None:
    events: list[Event] = [action(7, 101), action(8, 101), impression(7, 100)]

    results = run(events, SETTINGS)

    assert [item.labels for item in only(results).items] == [2]
    assert results.refused == [("actions", "orphan")]


def test_a_late_impression_joins_at_once_and_is_counted() -> None:
    join = new_join(SETTINGS)
    feed(join, impression(1, 200))
    join.advance(230)
    feed(join, action(9, 216))
    feed(join, impression(9, 205))

    changes = join.take_changes()

    assert changes.late_impressions == 1
    user = changes.users[1]
    assert [(e.item_id, e.kinds) for e in user.session] == [(1, 0), (9, 2)]
    assert entries(user.history_record(4)) == ((1, 200, 0), (9, 205, 2))


def test_a_late_impression_older_than_the_session_by_a_gap_is_a_session_of_its_own_with_the_history_of_its_time() -> (
    None
):
    join = new_join(SETTINGS)
    feed(join, impression(1, 100))
    join.advance(150)
    feed(join, impression(2, 200))
    join.advance(230)
    join.take_changes()

    feed(join, impression(9, 150))

    (session,) = join.changes.sessions
    assert entries(session) == ((1, 100, 0),)
    assert [item.item_id for item in session.items] == [9]
    assert entries(join.users[1].history_record(4)) == ((1, 100, 0), (9, 150, 0), (2, 200, 0))


def test_a_late_repetition_is_a_duplicate_and_one_older_than_a_full_history_is_refused() -> None:
    join = new_join(SETTINGS)
    for item in range(1, 7):
        feed(join, impression(item, item * 100))
    join.advance(700)
    join.take_changes()

    feed(join, impression(5, 500))
    feed(join, impression(1, 100))

    changes = join.take_changes()
    assert changes.duplicates == 1
    assert [(refusal.source, str(refusal.reason)) for refusal in changes.refusals] == [("impressions", "late")]
    assert changes.sessions == []


def test_a_repetition_as_old_as_the_whole_history_does_not_come_twice() -> None:
    join = new_join(SETTINGS)
    for item, time_ms in ((7, 100), (8, 100), (9, 500), (1, 600), (2, 700)):  # five, of which the history holds four
        feed(join, impression(item, time_ms))
    join.advance(800)
    join.take_changes()

    feed(join, impression(7, 100))

    changes = join.take_changes()
    assert changes.sessions == []
    assert [(refusal.source, str(refusal.reason)) for refusal in changes.refusals] == [("impressions", "late")]


def test_standing_still_publishes_what_is_in_the_making() -> None:
    join = new_join(SETTINGS)
    watermark = Watermark()
    feed(join, impression(1, 100))
    watermark.newest_ms = [100, 90]

    join.advance(watermark.pass_everything(SETTINGS.feedback_window_ms))
    join.close_idle()

    (session,) = join.changes.sessions
    assert session.closed_by is ClosedBy.IDLE
    changes = join.take_changes()
    join.forget(changes)
    assert join.users == {}


def test_the_session_id_is_a_function_of_user_and_first_exposure() -> None:
    one = only(run([impression(1, 100), impression(2, 101)], SETTINGS))
    other = only(run([impression(1, 100)], SETTINGS))
    later = only(run([impression(1, 101)], SETTINGS))

    assert one.session_id == other.session_id != later.session_id
    assert 0 <= one.session_id < 2**63
