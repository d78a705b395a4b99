"""Sessions and visits of the log in event time."""

from __future__ import annotations

import numpy as np

from evaluation.streaming.learner import batches
from evaluation.streaming.protocol import MIN_HISTORY, Recipe
from evaluation.streaming.stream import Closed
from onerec.settings import JoinerSettings
from tests.evaluation.streaming.small_stream import timeline

JOINER = JoinerSettings()


def test_every_exposure_is_in_one_session_that_closes_after_its_feedback() -> None:
    found = timeline()
    shown = [(c.session.user_id, item.item_id, item.time_ms) for c in found.sessions for item in c.session.items]
    own = found.exposures
    logged = zip(own.user_ids.tolist(), own.item_ids.tolist(), own.times_ms.tolist(), strict=True)
    assert sorted(shown) == sorted(logged)
    assert all(c.time_ms >= c.session.end_ms + JOINER.feedback_window_ms for c in found.sessions)
    assert [c.time_ms for c in found.sessions] == sorted(c.time_ms for c in found.sessions)


def test_a_session_is_given_the_history_before_it() -> None:
    """The newest thing a session's history knows is what the user met last before the session."""
    found = timeline()
    own = found.exposures
    for closed in found.sessions[-50:]:
        before = (own.user_ids == closed.session.user_id) & (own.times_ms < closed.session.start_ms)
        items = np.frombuffer(closed.session.history_items, "<i8")
        if before.any():
            assert items[-1] == own.item_ids[before][-1]


def test_a_visit_is_predicted_from_what_is_known_when_it_begins() -> None:
    found, cases = timeline(), timeline().cases
    own = found.exposures
    assert len(cases) > 50
    for case in range(len(cases)):
        user, begin_ms = cases.user_ids[case], cases.begin_ms[case]
        mine = own.user_ids == user
        known = mine & (own.times_ms <= begin_ms - JOINER.feedback_window_ms)
        seen = mine & (own.times_ms <= begin_ms)
        history = found.histories.user_ids.tolist().index(user)
        before = int(np.diff(found.histories.starts)[history])
        assert cases.known[case] - cases.first[case] == before + known.sum()
        assert cases.shown[case] - cases.first[case] == before + seen.sum() >= MIN_HISTORY
        assert cases.truth[case]
    assert (np.diff(cases.begin_ms) >= 0).all()


def test_a_step_takes_a_full_batch_at_once_and_the_rest_when_it_has_waited() -> None:
    session = timeline().sessions[0].session
    sessions = [Closed(time_ms, session) for time_ms in (0, 1000, 2000, 2500, 90_000)]
    found = list(batches(sessions, Recipe(batch=3, wait_s=60)))
    assert [(batch.time_ms, len(batch.sessions)) for batch in found] == [(2000, 3), (62_500, 1), (150_000, 1)]
