"""Visits of the evaluated period, against a plain loop over every user's exposures."""

from __future__ import annotations

import dataclasses

import numpy as np

from evaluation.ranking import recall
from evaluation.table1.generative import ranked_items, recommend_sessions
from evaluation.table1.protocol import MIN_HISTORY, SPLIT_MS
from evaluation.table1.world import World, with_long_views
from onerec.model.onerec import OneRec
from schemas.labels import Label
from stream.replay.log import Exposures
from tests.evaluation.table1.small_world import CONFIG, FORM, SmallLog, small_world

MINUTE_MS, HOUR_MS, GAP_MS = 60_000, 3_600_000, 1_800_000


def in_visits(exposures: Exposures) -> Exposures:
    """Three at a time, ten minutes apart; one of these visits begins before the split and ends after it."""
    number = (exposures.times_ms - SPLIT_MS) // HOUR_MS
    times_ms = SPLIT_MS - 5 * MINUTE_MS + number // 3 * 3 * HOUR_MS + number % 3 * 10 * MINUTE_MS + exposures.user_ids
    return dataclasses.replace(exposures, times_ms=times_ms).rows(np.argsort(times_ms, kind="stable"))


def expected(world: World) -> dict[tuple[int, int], tuple[list[int], set[int]]]:
    """By user and number of the visit: items before it, and new ones that were watched long or liked in it."""
    users = set(world.rows.user_ids[world.cases.users].tolist())
    log = SmallLog(lambda user_ids: np.isin(user_ids, list(users)), in_visits)
    histories, exposures, found = log.histories(1000), log.exposures(), {}
    liked = with_long_views(exposures) & np.uint8(Label.LONG_VIEW | Label.LIKE) > 0
    for user in users:
        own = histories.user_ids.tolist().index(user)
        past = histories.items[histories.starts[own] : histories.starts[own + 1]].tolist()
        before_ms, begin_ms, number, at_begin, truth = -GAP_MS * 10**6, 0, -1, list[int](), set[int]()
        for row in np.flatnonzero(exposures.user_ids == user).tolist():
            time_ms, item = int(exposures.times_ms[row]), int(exposures.item_ids[row])
            if time_ms - before_ms > GAP_MS:
                begin_ms, number, at_begin, truth = time_ms, number + 1, list(past), set()
            if liked[row] and item not in at_begin:
                truth.add(item)
                if begin_ms >= SPLIT_MS:
                    found[user, number] = (at_begin, truth)
            past.append(item)
            before_ms = time_ms
    return found


def test_visits_are_those_of_a_loop_over_each_users_exposures() -> None:
    world = small_world(in_visits)
    ids, visits = world.rows.items.item_ids, world.visits
    assert len(visits) > 60
    found = list[tuple[int, list[int], list[int]]]()
    for visit, user in enumerate(visits.user_ids.tolist()):
        past = ids[visits.past.items[visits.past.user(visit)]].tolist()
        found.append((user, past, sorted(ids[list(visits.truth[visit])].tolist())))
    wanted = [(user, past, sorted(truth)) for (user, _), (past, truth) in expected(world).items()]
    assert sorted(found) == sorted(wanted)
    assert max(len(truth) for *_, truth in wanted) > 1
    assert all(len(past) >= MIN_HISTORY for _, past, _ in wanted)


def test_labels_and_watch_times_go_with_the_items() -> None:
    world = small_world(in_visits)
    whole = {int(user): world.rows.past.user(row) for row, user in enumerate(world.rows.user_ids)}
    for visit, user in enumerate(world.visits.user_ids.tolist()):
        own, before = world.visits.past.user(visit), whole[user]
        shared = slice(own.start, own.start + before.stop - before.start)
        for column in ("items", "labels", "watch_ms"):
            known = getattr(world.rows.past, column)[before].tolist()
            assert getattr(world.visits.past, column)[shared].tolist() == known


def test_what_is_ranked_for_a_visit_is_new_to_its_user() -> None:
    world = small_world(in_visits)
    ranking = ranked_items(OneRec(CONFIG).eval(), world.at_visits())
    assert ranking.shape == (len(world.visits), 10)
    for visit, ranked in enumerate(ranking.tolist()):
        assert recall(ranked, set(world.visits.past.items[world.visits.past.user(visit)].tolist())) == 0


def test_first_items_of_sessions_are_ranked_as_items_are() -> None:
    """So that the columns of the cases and those by visit are of the same rankings."""
    world, model = small_world(), OneRec(CONFIG).eval()
    np.testing.assert_array_equal(recommend_sessions(model, world, FORM).ranking, ranked_items(model, world))
