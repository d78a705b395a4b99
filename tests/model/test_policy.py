"""ECPO and GBPO against their formulas, and what each does to the gradient far from the model that sampled."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onerec.model import policy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def gradient(loss: Loss, log_prob: float, old: float, advantage: float) -> float:
    """By the log-probability."""
    value = one(log_prob).requires_grad_()
    loss(value, one(old), one(advantage)).sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    return float(value.grad)


def test_advantages_are_standardised_within_a_group() -> None:
    rewards = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    assert policy.advantages(rewards).tolist() == [[-1.0, 1.0], [0.0, 0.0]]


def test_values() -> None:
    rho = math.exp(-1.9 + 2.0)
    assert policy.ecpo(one(-1.9), one(-2.0), one(0.5)).item() == pytest.approx(-0.5 * rho)
    assert policy.ecpo(one(-1.0), one(-2.0), one(0.5)).item() == pytest.approx(-0.5 * 1.2)
    assert policy.ecpo(one(-1.0), one(-2.0), one(-0.5)).item() == pytest.approx(0.5 * 1.3)
    assert policy.gbpo(one(-1.0), one(-2.0), one(0.5)).item() == pytest.approx(-0.5)
    assert policy.gbpo(one(-3.0), one(-2.0), one(0.5)).item() == pytest.approx(-0.5 * math.exp(-1.0))
    pi = math.exp(-1.0)
    assert policy.gbpo(one(-1.0), one(-2.0), one(-0.5)).item() == pytest.approx(0.5 * pi / (1 - pi))


@pytest.mark.parametrize("loss", [policy.ecpo, policy.gbpo])
def test_better_outputs_are_raised_and_worse_ones_lowered(loss: Loss) -> None:
    assert gradient(loss, -2.0, -2.0, 0.7) == pytest.approx(-0.7)
    assert gradient(loss, -2.0, -2.0, -0.7) > 0
    assert gradient(loss, -2.0, -2.0, 0.0) == 0.0


def test_ecpo_stops_where_grpo_stops_and_bounds_the_push_down() -> None:
    assert gradient(policy.ecpo, -1.0, -2.0, 0.7) == 0.0  # raised enough
    assert gradient(policy.ecpo, -3.0, -2.0, -0.7) == 0.0  # lowered enough
    far = gradient(policy.ecpo, -1.0, -21.0, -0.7)  # where GRPO's would be 0.7 e^20
    assert far == pytest.approx(0.7 * 1.3)


def test_gbpo_never_stops_and_is_bounded_as_cross_entropy() -> None:
    for old in (-1.0, -9.0, -60.0):
        assert gradient(policy.gbpo, -2.0, old, 1.0) == pytest.approx(-min(1.0, math.exp(-2.0 - old)))
    p = math.exp(-0.1)
    assert gradient(policy.gbpo, -0.1, -60.0, -1.0) == pytest.approx(p / (1 - p))
    assert 0 < gradient(policy.gbpo, -23.0, -23.0, -1.0) < 1e-9


@pytest.mark.parametrize("log_prob", [0.0, -1e-9, -1e4])
@pytest.mark.parametrize("old", [0.0, -1e4])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_losses_and_gradients_stay_finite(log_prob: float, old: float, advantage: float) -> None:
    for loss in (policy.ecpo, policy.gbpo):
        value = torch.tensor([log_prob], requires_grad=True)
        found = loss(value, torch.tensor([old]), torch.tensor([advantage]))
        found.sum().backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(found).all()
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()
