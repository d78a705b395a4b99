"""Test, then train: on a toy stream by hand, and on the real log whatever the order of arrival."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from evaluation.baselines.running import COMBINED, COOCCURRENCE, POPULARITY, Baselines
from evaluation.offline import score_log
from evaluation.scoreboard import LIVE
from evaluation.visits import FROZEN, KEEP_MS, Answer, VisitEvaluator
from onerec.settings import EvaluationSettings, Settings, load_settings
from stream.replay.kuairand import KuaiRand
from stream.replay.log import Exposures
from stream.replay.visits import ASKED_BEFORE_MS, visits_of
from tests.evaluation.small_log import SmallLog

MINUTE = 60_000
BEGIN = 1_650_000_000_000
SETTLE = 32 * MINUTE


def evaluator(**settings: Any) -> VisitEvaluator:
    found = EvaluationSettings(**({"min_history": 0} | settings))
    return VisitEvaluator(found, 2 * MINUTE, Baselines(found))


def show(to: VisitEvaluator, request_id: int, user_id: int, minute: float, items: list[int], *, liked: bool) -> None:
    """One visit: a request, then its items a second apart, all of them liked or none."""
    at = BEGIN + int(minute * MINUTE)
    to.asked(request_id, user_id, at)
    for place, item in enumerate(items, start=1):
        to.exposed(request_id, user_id, item, at + 1000 * place)
        if liked:
            to.liked(request_id, user_id, item, at + 1000 * place + 500)


def answer(*ranked: int, minute: float = 0, history_length: int = 0) -> Answer:
    return Answer(ranked, BEGIN + int(minute * MINUTE), history_length)


def test_a_visit_is_predicted_from_what_came_before_it_alone() -> None:
    found = evaluator()
    show(found, 1, 1, 0, [10], liked=True)
    show(found, 2, 2, 10, [10], liked=True)
    show(found, 3, 3, 20, [99], liked=True)
    found.finish()
    summary = found.scoreboard.summary()
    # Nothing is known at the first visit; the second is predicted from the first; item 99 is new at the third.
    assert summary["visits"] == 3
    assert summary["popularity_hit_rate_at_10"] == pytest.approx(1 / 3, abs=1e-4)
    assert summary["popularity_ndcg_at_10"] == pytest.approx(1 / 3, abs=1e-4)
    assert summary["hit_rate_at_10"] is None


def test_what_happens_between_request_and_exposure_is_not_known_to_the_prediction() -> None:
    found = evaluator()
    found.asked(2, 2, BEGIN)
    found.exposed(2, 2, 10, BEGIN + 1000)
    found.liked(2, 2, 10, BEGIN + 1500)
    found.exposed(1, 1, 10, BEGIN + 500)
    found.liked(1, 1, 10, BEGIN + 600)
    found.finish()
    assert found.scoreboard.summary()["popularity_hit_rate_at_10"] == 0.0


def test_visits_without_a_positive_are_learned_from_but_do_not_count() -> None:
    found = evaluator()
    show(found, 1, 1, 0, [10, 11], liked=False)
    show(found, 2, 2, 10, [10], liked=False)
    show(found, 3, 2, 50, [11], liked=True)
    found.finish()
    summary = found.scoreboard.summary()
    assert summary["visits"] == 1
    assert summary["cooccurrence_hit_rate_at_10"] == 1.0
    assert summary["popularity_hit_rate_at_10"] == 0.0


def test_answers_are_scored_on_the_same_visits() -> None:
    found = evaluator()
    found.answered(LIVE, 1, answer(10, 12))
    show(found, 1, 1, 0, [10, 11], liked=True)
    found.answered(FROZEN, 1, answer(12, 11))
    show(found, 2, 2, 10, [11], liked=True)
    found.answered(LIVE, 2, answer(7, 8, 11))
    found.answered(FROZEN, 2, answer(7, 8))
    found.finish()
    summary = found.scoreboard.summary()
    ideal = 1 + 1 / math.log2(3)
    assert summary["hit_rate_at_10"] == 1.0
    assert summary["frozen_hit_rate_at_10"] == 0.5
    assert summary["ndcg_at_10"] == pytest.approx((1 / ideal + 1 / math.log2(4)) / 2, abs=1e-4)
    assert summary["frozen_ndcg_at_10"] == pytest.approx((1 / math.log2(3) / ideal + 0) / 2, abs=1e-4)
    assert summary["paired"]["frozen"]["hit_rate"] == 0.5
    assert summary["paired"]["frozen"]["hit_rate_standard_error"] == 0.5


def test_a_visit_that_one_system_refused_counts_for_none() -> None:
    found = evaluator()
    for request_id in (1, 2):
        show(found, request_id, request_id, 10 * request_id, [10], liked=True)
        found.answered(LIVE, request_id, answer(10))
    found.answered(FROZEN, 1, answer(10))
    found.answered(FROZEN, 2, Answer(None, BEGIN, 0))
    found.finish()
    assert found.scoreboard.summary()["visits"] == 1
    assert found.scoreboard.summary()["visits_with_a_positive"] == 2
    assert found.unanswered == {FROZEN: 1}


def test_a_visit_waits_for_a_slow_answer_but_not_for_ever() -> None:
    found = evaluator()
    show(found, 1, 1, 0, [10], liked=True)
    show(found, 2, 2, 1, [10], liked=True)
    found.answered(LIVE, 1, answer(10))
    found.answered(LIVE, 2, answer(10))
    found.answered(FROZEN, 2, answer(3))
    found.advance(BEGIN + 2 * SETTLE)
    assert len(found.scoreboard) == 1
    found.answered(FROZEN, 1, answer(10))
    assert len(found.scoreboard) == 2
    show(found, 3, 3, 60, [10], liked=True)
    found.advance(BEGIN + 60 * MINUTE + 2 * SETTLE)
    assert len(found.scoreboard) == 2
    found.exposed(4, 4, 10, BEGIN + 61 * MINUTE + KEEP_MS)
    found.advance(BEGIN + 61 * MINUTE + KEEP_MS + SETTLE)
    assert len(found.scoreboard) == 3
    assert found.unanswered == {LIVE: 1, FROZEN: 1}


def test_an_answer_that_built_on_the_future_is_counted() -> None:
    found = evaluator()
    show(found, 1, 1, 0, [10, 11], liked=True)
    show(found, 2, 1, 60, [12], liked=True)
    found.answered(LIVE, 1, answer(10, history_length=0))
    found.answered(LIVE, 2, answer(10, history_length=2))
    found.finish()
    assert not found.answers_ahead[LIVE]
    show(found, 3, 1, 200, [13], liked=True)
    found.answered(LIVE, 3, answer(10, history_length=4, minute=200))
    found.answered(FROZEN, 3, answer(10, history_length=3, minute=200))
    found.finish()
    assert found.answers_ahead == {LIVE: 1, FROZEN: 0}


def test_users_with_little_history_are_kept_out_of_the_headline() -> None:
    found = evaluator(min_history=3)
    show(found, 1, 1, 0, [10, 11, 12], liked=True)
    show(found, 2, 1, 60, [13], liked=True)
    found.finish()
    summary = found.scoreboard.summary()
    assert (summary["visits"], summary["visits_with_a_positive"]) == (1, 2)
    assert [(row["earlier_exposures"], row["visits"]) for row in summary["by_history"][:2]] == [("0-2", 1), ("3-9", 1)]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


def events(exposures: Exposures, settings: Settings) -> list[tuple[str, tuple[int, ...]]]:
    """What happens, as calls of the evaluator that may be made in any order."""
    visits, rule = visits_of(exposures), settings.stream.joiner.labels
    calls: list[tuple[str, tuple[int, ...]]] = []
    for row in range(len(exposures)):
        request, user = int(visits.request_ids[visits.of_exposure[row]]), int(exposures.user_ids[row])
        item, time = int(exposures.item_ids[row]), int(exposures.times_ms[row])
        if visits.positions[row] == 0:
            calls.append(("asked", (request, user, time - ASKED_BEFORE_MS)))
        calls.append(("exposed", (request, user, item, time)))
        if (
            rule.is_long_view(int(exposures.watch_ms[row]), int(exposures.durations_ms[row]))
            or exposures.labels[row] & 2
        ):
            calls.append(("liked", (request, user, item, time)))
    return calls


def test_the_order_of_arrival_changes_nothing(settings: Settings) -> None:
    log = SmallLog(users=50)
    expected = score_log(settings, log, 1500).scoreboard.summary()
    assert expected["visits_with_a_positive"] > 300
    assert expected["popularity_hit_rate_at_10"] is not None
    calls = events(log.exposures().window(None, 1500), settings)
    random.Random(0).shuffle(calls)
    histories = log.histories(50)
    baselines = Baselines(settings.evaluation)
    for row, user in enumerate(histories.user_ids.tolist()):
        baselines.add_history(user, histories.items[histories.starts[row] : histories.starts[row + 1]].tolist())
    found = VisitEvaluator(settings.evaluation, settings.stream.joiner.feedback_window_ms, baselines)
    for name, arguments in calls:
        getattr(found, name)(*arguments)
    found.finish()
    assert found.scoreboard.summary() == expected


def test_baselines_score_on_the_first_events_what_they_scored_when_written(settings: Settings) -> None:
    """A change of the protocol or of a baseline shows here."""
    summary = score_log(settings, KuaiRand(), 5000).scoreboard.summary()
    assert (summary["visits"], summary["visits_with_a_positive"]) == (1475, 1503)
    for system, expected in ((POPULARITY, 0.0862), (COOCCURRENCE, 0.1147), (COMBINED, 0.1194)):
        assert summary[f"{system}_hit_rate_at_10"] == pytest.approx(expected, abs=0.002)
