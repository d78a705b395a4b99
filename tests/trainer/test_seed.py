"""The seed learns within its budget, repeats its bits, and can be made again from what it journalled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onerec.errors import CheckFailedError
from onerec.features import HistoryArrays
from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.settings import SeedSettings
from tests.trainer import toy
from tests.trainer.test_step import copied, same
from trainer.batches import SessionBatch
from trainer.budget import Budget, Recorded, SampleCount, WallTime, budget_of
from trainer.environment import make_deterministic
from trainer.objectives import next_token_loss
from trainer.samples import Samples, cut, sample_batch
from trainer.seed import SeedStep, learning_rate_share, train_seed
from trainer.shards import Shards
from trainer.state import TrainState


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def samples() -> Samples:
    """Users whose items count up by one: what follows is a function of what came before."""
    histories = []
    for user in range(40):
        items = np.arange(user, user + 11, dtype=np.int64) % toy.ITEMS
        labels = np.array([k % 2 for k in range(11)], np.uint8)
        histories.append(HistoryArrays(items, np.zeros(11, np.int64), labels))
    return cut(histories, toy.catalogue(), toy.TINY)


def seeded(budget: Budget, **seed: object) -> tuple[TrainState, list[SeedStep]]:
    settings: dict[str, Any] = {"batch": 16, "threads": 1} | seed
    state, steps = toy.state(seed=SeedSettings(**settings)), list[SeedStep]()
    train_seed(state, samples(), toy.catalogue(), budget, on_step=steps.append)
    return state, steps


def test_dropout_draws_the_same_again() -> None:
    first, again, without = (seeded(SampleCount(64), dropout=dropout) for dropout in (0.5, 0.5, 0.0))
    assert [step.losses for step in first[1]] == [step.losses for step in again[1]]
    assert first[1][0].losses["next_token"] != without[1][0].losses["next_token"]
    for state in (first[0], without[0]):
        usual = {module.p for module in state.onerec.modules() if isinstance(module, nn.Dropout)}
        assert usual == {state.config.dropout}
    with pytest.raises(ValueError, match="dropout above 0 needs threads = 1"):
        SeedSettings(dropout=0.1, threads=2)


def test_learns_and_leaves_fresh_optimizers() -> None:
    state, steps = seeded(SampleCount(1500), learning_rate=1e-2)
    losses = [step.losses["next_token"] for step in steps]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    rewards = [step.losses["reward"] for step in steps if "reward" in step.losses]
    assert rewards[-1] < rewards[0]
    assert state.step == state.online_from == len(steps)
    assert not state.onerec_optimizer.state


def test_rate_rises_and_decays_over_the_budget() -> None:
    _, steps = seeded(SampleCount(800), learning_rate=1.0, warmup_share=0.2, final_share=0.05)
    rates = [step.learning_rate for step in steps]
    peak = int(np.argmax(rates))
    assert 0.1 < peak / len(rates) < 0.3
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.1
    assert learning_rate_share(1.0, SeedSettings(final_share=0.05)) == pytest.approx(0.05)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_again(threads: int) -> None:
    runs = [copied(seeded(SampleCount(200), threads=threads)[0].tensors()) for _ in range(2)]
    assert same(*runs)


def test_seed_by_wall_time_is_made_again_from_its_shares() -> None:
    state, steps = seeded(budget_of(SeedSettings(budget_s=1.0)))
    again, _ = seeded(Recorded([step.losses["share"] for step in steps]))
    assert len(steps) > 1
    assert same(again.tensors(), state.tensors())


def test_wall_time_ends_by_the_clock() -> None:
    now = WallTime(10.0, started_s=0.0).share(0, 0)
    assert now > 0
    assert WallTime(2.0, started_s=0.0).share(0, 0) == pytest.approx(5 * now, rel=0.1)


def test_untrained_where_nobody_liked_anything() -> None:
    history = HistoryArrays(np.arange(9), np.zeros(9, np.int64), np.zeros(9, np.uint8))
    state = toy.state()
    before, steps = copied(state.onerec.state_dict()), list[SeedStep]()
    train_seed(state, cut([history], toy.catalogue(), toy.TINY), toy.catalogue(), SampleCount(9), on_step=steps.append)
    assert same(state.onerec.state_dict(), before)
    assert (state.step, steps) == (0, [])


def test_towers_that_histories_do_not_teach_start_as_the_nearest_ones() -> None:
    state, _ = seeded(SampleCount(64))
    snapshot, chosen = toy.catalogue(), samples()
    batch = sample_batch(chosen, np.arange(5), snapshot, toy.TINY)
    rewards = state.reward(batch.history, batch.codes, batch.durations_ms.float(), batch.mask)
    assert torch.equal(rewards.swt, rewards.vtr)
    assert torch.equal(rewards.wtr, rewards.ltr)
    assert not torch.equal(rewards.vtr, rewards.ltr)


def test_a_seed_that_explodes_is_a_sentence() -> None:
    with pytest.raises(CheckFailedError, match=r"loss is (nan|inf).*trainer\.seed\.learning_rate"):
        seeded(SampleCount(4000), learning_rate=1e9, warmup_share=0.0)


def test_dropout_is_off_during_the_seed_only() -> None:
    weights = []
    for dropout in (0.5, 0.0):
        state = TrainState.new(dataclasses.replace(toy.TINY, dropout=dropout), toy.state().settings)
        train_seed(state, samples(), toy.catalogue(), SampleCount(300), on_step=lambda _: None)
        weights.append(copied(state.weights()))
        assert state.onerec.dropout.p == dropout
    assert same(*weights)


def gradients(count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Gradients and expert loads of one batch, in `count` shards."""
    state, all_samples, trie = toy.state(), samples(), toy.catalogue().trie
    parts = [
        sample_batch(all_samples, np.arange(30)[shard::count].copy(), toy.catalogue(), toy.TINY)
        for shard in range(count)
    ]
    total = sum(float(part.weight.sum()) for part in parts)

    def loss_of(part: SessionBatch) -> Callable[[OneRec], torch.Tensor]:
        def loss(model: OneRec) -> torch.Tensor:
            value = next_token_loss(model, part, trie)
            assert value is not None
            return value * (float(part.weight.sum()) / total)

        return loss

    shards = Shards(state.onerec, count)
    shards.backward([loss_of(part) for part in parts])
    shards.close()
    loads = [module.load for module in state.onerec.modules() if isinstance(module, SparseMoE)]
    return [parameter.grad for parameter in state.onerec.parameters() if parameter.grad is not None], loads


def test_shards_have_the_gradient_of_the_whole_batch() -> None:
    (whole, whole_load), (parts, parts_load) = gradients(1), gradients(3)
    assert len(whole) == len(parts) > 10
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert len(whole_load) == len(parts_load) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole_load, parts_load, strict=True))
