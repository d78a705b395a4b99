"""The simulated users, on an invented user and on a slice of the real log."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from evaluation.simulator.check import heads, wasserstein
from evaluation.simulator.fit import Half, fit, half_of, is_fitted, is_held_out, new_user, rates_of, walk
from evaluation.simulator.model import FEATURES, HEADS, ItemRates, Simulator, threshold_ms
from evaluation.simulator.state import SESSION_GAP_MS, ShownItem, UserState
from onerec.settings import LabelSettings
from stream.replay.kuairand import KuaiRand
from tests.evaluation.simulator.tagged import tagged_items

NOW = 1_651_000_000_000
RATES = ItemRates({}, {"cats": np.array([0.6, 0.1])}, np.array([0.3, 0.02]))


def item(item_id: int = 1, axis: int = 0, author_id: int = 7) -> ShownItem:
    return ShownItem(item_id, np.eye(4)[axis], 40_000, author_id, ("cats",))


def invented(stay: float = 0.0) -> Simulator:
    weights = np.zeros((len(HEADS), len(FEATURES) + 1))
    weights[0, FEATURES.index("affinity")] = 2.0
    weights[3, 0] = stay
    ratios = np.stack([np.linspace(0, 0.99, 65), np.linspace(1, 4, 65)])
    returns = np.linspace(SESSION_GAP_MS + 1, 10 * SESSION_GAP_MS, 65)
    return Simulator(RATES, weights, np.tile(ratios, (7, 1, 1)), returns)


def user(user_id: int = 5) -> UserState:
    return new_user(user_id, RATES, 4)


def test_the_same_question_gets_the_same_answer() -> None:
    state = user()
    before = copy.deepcopy(state)
    answers = [invented().respond(state, item(), NOW, seed=1) for _ in range(2)]
    assert answers[0] == answers[1]
    assert np.array_equal(state.interests, before.interests)
    assert state.position == before.position
    assert len({invented().respond(user(), item(), NOW, seed).watch_ms for seed in range(20)}) > 10


def test_arms_share_their_random_numbers() -> None:
    """A user who likes an item better watches it no shorter, draw by draw."""
    fond = user()
    fond.update(item(), NOW - 2 * SESSION_GAP_MS, long_view=True, like=False)
    for time_ms in range(NOW, NOW + 100):
        with_interest = invented().respond(fond, item(), time_ms, seed=1)
        without = invented().respond(user(), item(), time_ms, seed=1)
        assert with_interest.watch_ms >= without.watch_ms


def test_watch_time_and_long_view_agree_with_the_joiners_rule() -> None:
    rule = LabelSettings()
    for duration_ms in (0, 900, 7_600, 18_000, 40_000):
        shown = replace(item(), duration_ms=duration_ms)
        for seed in range(50):
            answer = invented().respond(user(), shown, NOW, seed)
            assert answer.long_view == rule.is_long_view(answer.watch_ms, duration_ms)
    assert threshold_ms(7_600) == 7_000


def test_who_leaves_comes_back_in_another_session() -> None:
    answers = [invented(stay=0.0).respond(user(), item(), NOW + at, seed=1) for at in range(50)]
    assert {answer.stays for answer in answers} == {True, False}
    assert all((answer.return_ms or 0) > SESSION_GAP_MS for answer in answers if not answer.stays)
    assert all(answer.return_ms is None for answer in answers if answer.stays)


def test_interests_drift_to_what_was_watched_and_repeats_tire() -> None:
    state = user()
    state.update(item(axis=0), NOW, long_view=True, like=False)
    first = state.affinity(item(axis=1))
    habit = state.long_view_habit
    state.update(item(2, axis=1), NOW + 1, long_view=True, like=True)
    assert state.affinity(item(axis=1)) > first
    assert state.long_view_habit > habit
    before = state.interests.copy()
    state.update(item(3, axis=2), NOW + 2, long_view=False, like=False)
    assert np.array_equal(state.interests, before)
    assert state.author_repeats(item()) == 3
    assert state.author_repeats(item(author_id=8)) == 0
    assert state.tag_share(item()) == pytest.approx(0.3)
    assert state.position_at(NOW + 3) == 3
    assert state.position_at(NOW + 3 + SESSION_GAP_MS) == 0


def test_who_follows_and_stays_is_remembered() -> None:
    loyal, fleeting = user(), user()
    for at in range(20):
        loyal.update(item(at), NOW + at * 1000, long_view=False, like=False, follow=True)
        fleeting.update(item(at), NOW + at * 2 * SESSION_GAP_MS, long_view=False, like=False)
    assert loyal.follow_habit > 100 * fleeting.follow_habit
    assert loyal.stay_habit(NOW + 20_000) > 0.6
    assert fleeting.stay_habit(NOW + 40 * SESSION_GAP_MS) < 0.1


def test_an_unseen_item_is_judged_by_its_tags() -> None:
    assert RATES.of(item(99)).tolist() == [0.6, 0.1]
    assert RATES.of(replace(item(99), tags=("new",))).tolist() == [0.3, 0.02]


@pytest.fixture(scope="module")
def catalogue() -> dict[int, ShownItem]:
    return tagged_items()


def halves() -> tuple[Half, Half]:
    return half_of(KuaiRand(), is_fitted, 400), half_of(KuaiRand(), is_held_out, 400)


def test_it_foretells_users_it_was_not_fitted_on(catalogue: dict[int, ShownItem]) -> None:
    own, others = halves()
    assert not np.isin(own.exposures.user_ids, others.exposures.user_ids).any()
    assert not np.isin(own.histories.user_ids, others.histories.user_ids).any()
    rates = rates_of(own.histories, catalogue)
    fitted, held_out = walk(own, catalogue, rates), walk(others, catalogue, rates)
    found = heads(fit(fitted, rates), fitted, held_out)
    for name, share in (("long_view", 0.95), ("like", 0.9)):
        losses = found[name]["log_loss"]
        assert losses["simulator"] < share * losses["global_mean"], name
    assert found["long_view"]["auc"]["simulator"] > 0.65


def test_an_exposure_is_described_before_it_is_answered(catalogue: dict[int, ShownItem]) -> None:
    """Turning the answers of the last exposures leaves their users' earlier features as they were."""
    own, _ = halves()
    rates = rates_of(own.histories, catalogue)
    plain = walk(own, catalogue, rates)
    labels = own.exposures.labels.copy()
    labels[-1] ^= 2
    turned = walk(replace(own, exposures=replace(own.exposures, labels=labels)), catalogue, rates)
    assert np.array_equal(plain.rows, turned.rows)
    assert not np.array_equal(plain.answers, turned.answers)


def test_wasserstein_is_the_shift_of_a_shifted_sample() -> None:
    assert wasserstein(np.array([1.0, 5.0, 2.0]), np.array([3.0, 4.0, 7.0])) == pytest.approx(2.0)
