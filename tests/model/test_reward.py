"""The reward model: candidates of one user, masks, the loss, targets and the merged scalar."""

from __future__ import annotations

import math

import pytest
import torch

from onerec.model.batches import HistoryBatch
from onerec.model.reward import (
    OBJECTIVES,
    RewardModel,
    Rewards,
    duration_feature,
    merge,
    reward_loss,
    watch_target,
)
from tests.model.toy import assert_equal, config, history, sessions, trie

TRIE = trie()


def made() -> RewardModel:
    torch.manual_seed(0)
    model: RewardModel = RewardModel(config()).double()
    return model


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    codes = TRIE.codes_of(sessions(batch, 3, TRIE))
    return codes, torch.linspace(-1, 1, 3 * batch, dtype=torch.float64).view(batch, 3), torch.ones(batch, 3).bool()


def test_candidates_of_one_user_score_as_in_a_batch() -> None:
    model, one = made(), history([5], 8, TRIE)
    repeated = HistoryBatch(*(t.expand(4, *t.shape[1:]) for t in (one.codes, one.labels, one.mask)))
    together, candidates = model(repeated, *inputs(4)), model.score_candidates(one, *inputs(4))
    for name in OBJECTIVES:
        assert_equal(getattr(candidates, name), getattr(together, name))
        assert getattr(candidates, name).unique().numel() == 4


def test_each_item_scores_as_a_session_of_its_own() -> None:
    model, long = made(), history([5, 3], 8, TRIE)
    codes, duration, mask = inputs(2)
    each = model.score_each(long, codes, duration)
    for place in range(3):
        at = slice(place, place + 1)
        alone = model(long, codes[:, at], duration[:, at], mask[:, at])
        for name in OBJECTIVES:
            assert_equal(getattr(each, name)[:, place], getattr(alone, name))


def test_masked_items_and_padding_change_nothing() -> None:
    model, long = made(), history([5, 0], 8, TRIE)
    short = HistoryBatch(long.codes[:, :5], long.labels[:, :5], long.mask[:, :5])
    codes, duration, mask = inputs(2)
    mask[:, 2] = False
    other = codes.clone()
    other[:, 2] = (other[:, 2] + 1) % 8
    for a, b in zip(model(long, codes, duration, mask), model(short, other, duration, mask), strict=True):
        assert_equal(a, b)
    cut = model(short, codes[:, :2], duration[:, :2], mask[:, :2])
    assert_equal(cut.swt, model(short, codes, duration, mask).swt)


def test_a_session_without_items_scores_finite_and_trains() -> None:
    codes, duration, mask = inputs(2)
    logits = made()(history([3, 0], 3, TRIE), codes, duration, mask & torch.tensor([[True], [False]]))
    torch.stack(list(logits)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(logit).all() for logit in logits)


@pytest.mark.parametrize("change", ["history", "labels", "items", "duration"])
def test_everything_it_is_given_matters(change: str) -> None:
    model, before = made(), history([5], 5, TRIE)
    codes, duration, mask = inputs(1)
    reference = model(before, codes, duration, mask).swt
    match change:
        case "history":
            before = HistoryBatch((before.codes + 1) % 8, before.labels, before.mask)
        case "labels":
            before = HistoryBatch(before.codes, (before.labels + 1) % 64, before.mask)
        case "items":
            codes = (codes + 1) % 8
        case _:
            duration = duration + 1.0
    assert not torch.allclose(model(before, codes, duration, mask).swt, reference)


def test_loss_is_cross_entropy_summed_over_the_objectives() -> None:
    logits = Rewards(*torch.tensor([[0.5, -1.0], [0.0, 2.0], [-3.0, -4.0], [1.0, 1.0]]))
    targets = Rewards(*torch.tensor([[0.2, 0.9], [1.0, 0.4], [0.0, 1.0], [0.0, 0.0]]))
    expected = 0.0
    for logit, target in zip(torch.stack(list(logits)).tolist(), torch.stack(list(targets)).tolist(), strict=True):
        for x, y in zip(logit, target, strict=True):
            p = 1 / (1 + math.exp(-x))
            expected -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 2
    assert float(reward_loss(logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_targets_and_features_are_scaled() -> None:
    watch = watch_target(torch.tensor([0, 104_000, 10_000_000]))
    assert watch.tolist() == pytest.approx([0.0, 1 - math.exp(-1), 1.0])
    feature = duration_feature(torch.tensor([0, 15_000, 600_000]))
    assert feature.tolist() == pytest.approx([-1.0, math.log(16) / 3 - 1, math.log(601) / 3 - 1])


def test_merge_weighs_standardised_objectives() -> None:
    probabilities = Rewards(*(torch.tensor([0.1, 0.9]) for _ in OBJECTIVES)).probabilities()
    mean = Rewards(*(torch.tensor(0.5) for _ in OBJECTIVES))
    std = Rewards(*(torch.tensor(s) for s in (0.1, 0.2, 0.0, 0.5)))
    merged = merge(probabilities, mean, std, (1.0, 2.0, 0.0, -1.0))
    p = torch.sigmoid(torch.tensor([0.1, 0.9]))
    expected = (p - 0.5) / 0.1 + 2 * (p - 0.5) / 0.2 - (p - 0.5) / 0.5
    torch.testing.assert_close(merged, expected)


def test_it_learns_who_watches_long() -> None:
    torch.manual_seed(0)
    model = RewardModel(config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    users, (codes, duration, mask) = history([6] * 16, 6, TRIE), inputs(16)
    target = (users.labels[:, -1] & 1).float()
    targets = Rewards(*(target for _ in OBJECTIVES))
    for _ in range(30):
        loss = reward_loss(model(users, codes, duration.float(), mask), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    predicted = model(users, codes, duration.float(), mask).probabilities().swt.detach()
    assert float(predicted[target == 1].mean() - predicted[target == 0].mean()) > 0.8
