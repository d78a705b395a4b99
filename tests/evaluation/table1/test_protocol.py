"""Nothing of the evaluated period reaches training, and the judge shares no user with the rows."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from evaluation.table1.protocol import FULL, QUICK, SPLIT_MS, of_rows
from evaluation.table1.world import Side
from schemas.labels import Label
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures
from tests.evaluation.table1.small_world import small_world


def digest(side: Side) -> str:
    """Of everything that models of this side are trained on."""
    sha = hashlib.sha256()
    past, catalogue = side.past, side.catalogue
    for column in (past.starts, past.items, past.labels, past.watch_ms, catalogue.item_ids, catalogue.codes):
        sha.update(np.ascontiguousarray(column).tobytes())
    for session in side.sessions():
        for part in (*session.history, session.leaves, session.labels):
            sha.update(np.ascontiguousarray(part).tobytes())
        sha.update(str(session.watch_ms).encode())
    return sha.hexdigest()


def changed(exposures: Exposures, rows: np.ndarray) -> Exposures:
    """Other items, watch times and labels at `rows`."""
    items, watch_ms, labels = exposures.item_ids.copy(), exposures.watch_ms.copy(), exposures.labels.copy()
    items[rows], watch_ms[rows], labels[rows] = 1000, 99_000, int(Label.FOLLOW)
    return dataclasses.replace(exposures, item_ids=items, watch_ms=watch_ms, labels=labels)


def test_what_happens_from_the_split_on_changes_no_training_data() -> None:
    before = small_world()
    after = small_world(lambda exposures: changed(exposures, exposures.times_ms >= SPLIT_MS))
    assert digest(after.rows) == digest(before.rows)
    assert digest(after.judge) == digest(before.judge)
    assert after.cases.truth != before.cases.truth


@pytest.mark.parametrize("of_row_users", [True, False])
def test_a_user_teaches_one_side_only(of_row_users: bool) -> None:
    def change(exposures: Exposures) -> Exposures:
        user = next(user for user in range(300) if of_rows(np.array([user]))[0] == of_row_users)
        return changed(exposures, exposures.user_ids == user)

    before, after = small_world(), small_world(change)
    assert (digest(after.rows) != digest(before.rows)) is of_row_users
    assert (digest(after.judge) != digest(before.judge)) is not of_row_users


def test_cases_hold_what_a_user_took_to_next() -> None:
    world = small_world()
    ids = world.rows.items.item_ids
    assert len(world.cases) == 40
    for row, truth in zip(world.cases.users.tolist(), world.cases.truth, strict=True):
        past = world.rows.past
        tags = [world.rows.items.tags[leaf] for leaf in past.items[past.user(row)][past.labels[past.user(row)] > 0]]
        assert {world.rows.items.tags[leaf] for leaf in truth} <= set(tags)
        assert not {ids[leaf] for leaf in truth} & set(world.rows.history(row).items.tolist())


def test_sessions_are_of_known_watch_times_and_come_after_their_history() -> None:
    sessions = small_world().rows.sessions()
    assert {len(session.leaves) for session in sessions} == {5}
    assert {len(session.history.items) for session in sessions} == {16, 21}
    assert all(session.watch_ms in {25_000 * n + 2_000 * (5 - n) for n in range(6)} for session in sessions)


def test_the_real_histories_end_before_the_split() -> None:
    histories = KuaiRand().histories(last=1)
    assert int(histories.updated_ms.max()) < SPLIT_MS
    assert 0.58 < of_rows(histories.user_ids).mean() < 0.62


def test_forms_do_not_mix() -> None:
    assert FULL.digest() != QUICK.digest() != dataclasses.replace(QUICK, cases=1).digest()
