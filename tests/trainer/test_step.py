"""A step is a function of state and input, applies each record once, and refuses what is not finite."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from onerec.features import HistoryArrays, history_batch
from onerec.model.likelihood import token_log_probs
from schemas.labels import Label
from schemas.reasons import Reason
from tests.trainer import toy
from trainer.admission import StepInput
from trainer.batches import pair_batch
from trainer.environment import make_deterministic
from trainer.state import TrainState
from trainer.step import apply_step
from trainer.update import NON_FINITE, NOTHING_TO_LEARN


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stream(steps: int) -> list[StepInput]:
    """Sessions that follow a rule (each item leads to the next two), and a pair now and then."""
    inputs = []
    for step in range(steps):
        sessions = [
            toy.session(100 * step + k, [(step + k) % 50 + 1, (step + k) % 50 + 2], history=[(step + k) % 50])
            for k in range(4)
        ]
        pairs = [toy.pair(step, [1, 2, 3], [4, 5, 6], (-12.0, -12.0))] if step % 3 == 0 else []
        inputs.append(toy.step_input(sessions, pairs, first_offset=4 * step))
    return inputs


def test_same_state_and_input_give_the_same_bits() -> None:
    dropping = dataclasses.replace(toy.TINY, dropout=0.2)
    runs = []
    for _ in range(2):
        state = TrainState.new(dropping, toy.state().settings)
        results = [apply_step(state, step_input) for step_input in stream(7)]
        runs.append((copied(state.tensors()), [result.losses for result in results]))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_dropout_differs_from_step_to_step_and_seed_to_seed() -> None:
    dropping = dataclasses.replace(toy.TINY, dropout=0.2)
    losses = {
        apply_step(TrainState.new(dropping, toy.state().settings), stream(1)[0]).losses["next_token"] for _ in range(2)
    }
    assert len(losses) == 1
    later = TrainState.new(dropping, toy.state().settings)
    later.step = 1
    assert apply_step(later, stream(1)[0]).losses["next_token"] not in losses


def test_loss_goes_down_on_a_learnable_stream() -> None:
    state = toy.state(learning_rate=3e-3)
    losses = []
    for step in range(40):
        sessions = [toy.session(4 * step + k, [10 + k, 20 + k], history=[k]) for k in range(4)]
        losses.append(apply_step(state, toy.step_input(sessions)).losses["next_token"])
    assert losses[-1] < 0.3 * losses[0]


def test_reward_model_learns_what_is_watched() -> None:
    state = toy.state(reward_learning_rate=1e-2)
    losses = []
    for step in range(60):
        good, bad = 2 * step, 2 * step + 1
        sessions = [
            toy.session(good, [10, 11], labels=Label.LONG_VIEW | Label.LIKE),
            toy.session(bad, [40, 41], labels=Label.NONE),
        ]
        losses.append(apply_step(state, toy.step_input(sessions)).losses["reward"])
    assert losses[-1] < 0.5 * losses[0]


def reference(state: TrainState, items: list[int]) -> float:
    """Log-probability of a session under the state, as the sampler computes it."""
    snapshot = toy.catalogue()
    batch = pair_batch([toy.pair(0, items, items, (0.0, 0.0))], snapshot, toy.TINY)
    with torch.no_grad():
        memory = state.onerec.eval().encode(batch.history)
        log_probs = token_log_probs(state.onerec, memory, batch.chosen, snapshot.trie)
    state.onerec.train()
    return float(log_probs.sum())


@pytest.mark.parametrize("loss", ["dpo", "ipo", "cdpo", "rdpo", "cpo", "simpo", "sdpo", "ecpo", "gbpo"])
def test_preferences_raise_the_margin(loss: str) -> None:
    state = toy.state(learning_rate=1e-3, preference_loss=loss, preference_weight=1.0)
    chosen, rejected = [1, 2, 3], [4, 5, 6]
    before = reference(state, chosen), reference(state, rejected)
    pairs = [toy.pair(step, chosen, rejected, before) for step in range(20)]
    first = apply_step(state, toy.step_input(pairs=pairs[:1]))
    assert first.losses["preference_margin"] == pytest.approx(0.0, abs=1e-4)
    for one in pairs[1:]:
        result = apply_step(state, toy.step_input(pairs=[one]))
    assert reference(state, chosen) - reference(state, rejected) > before[0] - before[1] + 0.5
    assert result.losses["preference_margin"] > 0.5
    assert result.pairs == 1


def test_non_finite_step_leaves_everything_as_it_was_and_says_so() -> None:
    state = toy.state()
    apply_step(state, stream(1)[0])
    with torch.no_grad():
        before = copied(state.weights())
        moments = {k: v for k, v in copied(state.tensors()).items() if k.startswith("optimizer.")}
    poison = toy.pair(1, [1, 2, 3], [4, 5, 6], (-1e30, 1e30))
    poison = dataclasses.replace(poison, chosen_log_prob=math.inf)
    result = apply_step(state, toy.step_input([toy.session(900, [5, 6])], [poison]))
    assert result.refused is not None
    assert result.refused.startswith(NON_FINITE)
    assert (result.sessions, result.pairs) == (0, 0)
    assert all(r.applied == 0 for r in result.ranges)
    assert same(state.weights(), before)
    assert same({k: v for k, v in state.tensors().items() if k.startswith("optimizer.")}, moments)
    assert state.step == 2
    assert state.offsets["sessions", 0] == 1


def test_duplicates_are_applied_once() -> None:
    state = toy.state()
    once, pair = toy.session(1, [5, 6]), toy.pair(1, [1, 2, 3], [4, 5, 6], (-12.0, -12.0))
    first = apply_step(state, toy.step_input([once, once], [pair, pair]))
    assert (first.sessions, first.pairs, first.duplicates) == (1, 1, 2)
    assert [r.applied for r in first.ranges] == [1, 1]
    before = copied(state.weights())
    again = apply_step(state, toy.step_input([once], [pair], first_offset=2))
    assert (again.sessions, again.pairs, again.duplicates) == (0, 0, 2)
    assert again.refused == NOTHING_TO_LEARN
    assert same(state.weights(), before)


def test_window_of_seen_ids_is_bounded() -> None:
    state = toy.state(pair_window=2)
    for identifier in (1, 2, 3):
        apply_step(state, toy.step_input([toy.session(identifier, [5])]))
    assert list(state.seen_sessions) == [2, 3]


def test_session_without_positives_trains_the_reward_model_only() -> None:
    state = toy.state()
    before = copied(state.weights())
    result = apply_step(state, toy.step_input([toy.session(1, [5, 6], labels=0)]))
    after = state.weights()
    assert result.sessions == 1
    assert "next_token" not in result.losses
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("onerec."))
    assert any(not torch.equal(after[name], before[name]) for name in after if name.startswith("reward."))


def test_unknown_items_cost_the_exposure_and_are_refused() -> None:
    state = toy.state()
    partly = toy.session(1, [5, toy.UNKNOWN_ITEM, 6])
    whole = toy.session(2, [toy.UNKNOWN_ITEM])
    pair = toy.pair(3, [1, 2, 3], [4, 5, toy.UNKNOWN_ITEM], (-12.0, -12.0))
    result = apply_step(state, toy.step_input([partly, whole], [pair]))
    assert [refusal.reason for refusal in result.refusals] == [Reason.UNKNOWN_ITEM] * 3
    assert (result.sessions, result.pairs) == (1, 0)
    assert result.produced_ms == (5000, 5002)
    # Once the item is known, a replayed dead letter of the second session counts: nothing of it was applied.
    assert apply_step(state, toy.step_input([toy.session(2, [7])])).sessions == 1


def test_sessions_longer_than_the_model_are_cut() -> None:
    state = toy.state()
    long = toy.session(1, [5, 6, 7, 8, 9, 10, 11])
    result = apply_step(state, toy.step_input([long]))
    assert result.sessions == 1
    assert len(result.produced_ms) == 7


def test_next_token_loss_covers_positives_and_sees_the_rest() -> None:
    """A negative exposure carries no loss, but it stands in the decoder's input before the positive one."""
    state, snapshot = toy.state(), toy.catalogue()
    both = toy.session(1, [5, 9])
    skipped = dataclasses.replace(both.items[0], labels=0)
    mixed = dataclasses.replace(both, items=(skipped, both.items[1]))
    alone = dataclasses.replace(both, items=(both.items[1],))
    loss = {}
    for name, record in (("mixed", mixed), ("alone", alone)):
        fresh = toy.state()
        loss[name] = apply_step(fresh, toy.step_input([record])).losses["next_token"]
    batch = pair_batch([toy.pair(0, [5, 9, 9], [5, 9, 9], (0.0, 0.0))], snapshot, toy.TINY)
    history = history_batch([HistoryArrays.of(both)], snapshot, toy.TINY)
    with torch.no_grad():
        memory = state.onerec.encode(history)
        log_probs = token_log_probs(state.onerec, memory, batch.chosen[:, :2], snapshot.trie)
    expected = -log_probs[0, 1].mean()
    assert loss["mixed"] == pytest.approx(float(expected), rel=1e-5)
    assert loss["mixed"] != pytest.approx(loss["alone"], rel=1e-4)
