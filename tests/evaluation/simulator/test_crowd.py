"""Who asks when, and what becomes of a visit."""

from __future__ import annotations

import numpy as np

from evaluation.simulator.crowd import Visit, chosen_users, expected_watch_ms
from evaluation.simulator.driver import records_of, request_of
from evaluation.simulator.fit import new_user
from evaluation.simulator.live import by_quarter
from evaluation.simulator.state import SESSION_GAP_MS
from schemas.packed import unpack_longs
from schemas.records import Action, ActionKind, Impression
from tests.evaluation.simulator.invented import HOUR_MS, ITEMS, NOW, RATES, crowd, simulator


def test_everybody_comes_once_in_the_spread_and_again_after_a_gap() -> None:
    people = crowd(50, stay=-9.0)
    first = people.due(NOW + HOUR_MS)
    assert sorted(ask.user_id for ask in first) == list(range(50))
    assert all(NOW <= ask.time_ms < NOW + HOUR_MS for ask in first)
    assert not people.due(NOW + HOUR_MS)
    for ask in first:
        assert len(people.react(ask, [1, 2, 3])) == 1
    again = {ask.user_id: ask for ask in people.due(NOW + 6 * HOUR_MS)}
    assert len(again) == len({ask.request_id for ask in (*first, *again.values())}) - 50 == 50
    assert all(again[ask.user_id].time_ms - ask.time_ms > SESSION_GAP_MS for ask in first)


def test_who_stays_asks_again_in_the_same_visit_without_what_was_shown() -> None:
    people = crowd(1, stay=9.0)
    (ask,) = people.due(NOW + HOUR_MS)
    shown = people.react(ask, [1, 2, 3])
    assert [one.item.item_id for one in shown] == [1, 2, 3]
    assert [one.position for one in shown] == [0, 1, 2]
    times = [one.time_ms for one in shown]
    assert times == sorted(set(times))
    (more,) = people.due(NOW + 2 * HOUR_MS)
    assert more.visit is ask.visit
    assert more.time_ms >= times[-1] + shown[-1].answer.watch_ms
    assert unpack_longs(request_of(more).exclude_items) == [1, 2, 3]
    assert people.finished == []


def test_a_visit_sums_up_what_was_shown() -> None:
    people = crowd(200, stay=0.0, like=0.0)
    visits: dict[int, list[int]] = {}
    for ask in people.due(NOW + HOUR_MS):
        visits[ask.user_id] = [one.answer.watch_ms for one in people.react(ask, [1, 2, 3, 4])]
    ended = people.finished
    assert 100 < len(ended) < 200
    assert all(visit.watch_ms == sum(visits[visit.user_id]) for visit in ended)
    assert all(len(visit.shown) == len(visits[visit.user_id]) for visit in ended)
    assert 0 < sum(visit.likes for visit in ended) < sum(len(visit.shown) for visit in ended)


def test_without_an_answer_the_user_leaves_and_comes_back() -> None:
    people = crowd(1)
    (ask,) = people.due(NOW + HOUR_MS)
    assert people.react(ask, [12345]) == []  # an item that does not exist
    assert people.finished == [Visit(0, ask.time_ms, requests=1)]
    (again,) = people.due(NOW + 6 * HOUR_MS)
    assert again.time_ms > ask.time_ms + SESSION_GAP_MS


def test_the_same_seed_gives_the_same_crowd() -> None:
    def times(seed: int) -> list[int]:
        return [ask.time_ms for ask in crowd(20, seed=seed).due(NOW + HOUR_MS)]

    assert times(1) == times(1) != times(2)
    assert chosen_users(range(100), 10, 1) == chosen_users(range(100), 10, 1) != chosen_users(range(100), 10, 2)
    assert chosen_users(range(5), None, 1) == [0, 1, 2, 3, 4]


def test_the_expected_watch_time_is_the_mean_of_those_drawn() -> None:
    own, state = simulator(), new_user(5, RATES, 4)
    drawn = [own.respond(state, ITEMS[1], NOW, seed).watch_ms for seed in range(3000)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - expected_watch_ms(own, state, ITEMS[1], NOW)) < 4 * error


def test_an_exposure_is_an_impression_and_actions_within_the_window() -> None:
    people = crowd(60, like=9.0)
    for ask in people.due(NOW + HOUR_MS):
        for exposed in people.react(ask, [1]):
            found = list(records_of(exposed, 3, report_view_ms=20_000))
            assert all(time_ms == record.time_ms for _, time_ms, record in found)
            shown, view, like = (record for _, _, record in found[:3])
            assert isinstance(shown, Impression)
            assert (shown.request_id, shown.model_version) == (ask.request_id, 3)
            assert isinstance(view, Action)
            assert view.kind is ActionKind.VIEW
            assert view.watch_ms == min(exposed.answer.watch_ms, 20_000) == view.time_ms - shown.time_ms
            assert like.kind is ActionKind.LIKE
            assert shown.time_ms <= like.time_ms <= view.time_ms


def test_quarters_are_of_the_visits_in_their_order() -> None:
    visits = [
        Visit(user, NOW, [1, user], expected_watch_ms=1000.0 * (10 + user // 4), long_views=user // 8)
        for user in range(16)
    ]
    assert by_quarter(visits) == [
        {"expected_watch_time_s": [10.0 + row, 0.0], "long_view_share": share, "different_items": different}
        for row, (share, different) in enumerate([(0.0, 4), (0.0, 5), (0.5, 5), (0.5, 5)])
    ]
    assert by_quarter(visits[:7]) == []
