"""Preference losses against the formulas written out with the standard library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from onerec.model import preference

CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = -20.0, -26.0, -21.5, -24.0
H = (CHOSEN - REF_CHOSEN) - (REJECTED - REF_REJECTED)  # 3.5
Loss = Callable[..., Tensor]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


PAIR = (one(CHOSEN), one(REJECTED), one(REF_CHOSEN), one(REF_REJECTED))
FORMULAS: list[tuple[str, dict[str, Any], float]] = [
    ("dpo", {"beta": 0.3}, -log_sigmoid(0.3 * H)),
    ("ipo", {"beta": 0.1}, (H - 5.0) ** 2),
    ("cdpo", {"beta": 0.3, "flipped": 0.2}, -0.8 * log_sigmoid(0.3 * H) - 0.2 * log_sigmoid(-0.3 * H)),
    ("rdpo", {"beta": 0.3, "flipped": 0.2}, (-0.8 * log_sigmoid(0.3 * H) + 0.2 * log_sigmoid(-0.3 * H)) / 0.6),
]


@pytest.mark.parametrize(("name", "options", "expected"), FORMULAS)
def test_losses_with_a_reference(name: str, options: dict[str, Any], expected: float) -> None:
    loss: Loss = getattr(preference, name)
    assert loss(*PAIR, **options).tolist() == pytest.approx([expected], rel=1e-12)


def test_cpo_and_simpo_need_no_reference() -> None:
    cpo = preference.cpo(PAIR[0], PAIR[1], tokens=15, beta=0.2, alpha=0.5)
    assert cpo.tolist() == pytest.approx([-log_sigmoid(0.2 * 6.0) + 0.5 * 20.0 / 15])
    simpo = preference.simpo(PAIR[0], PAIR[1], tokens=15, beta=2.0, gamma_ratio=0.25)
    assert simpo.tolist() == pytest.approx([-log_sigmoid(2.0 * 6.0 / 15 - 0.5)])


def test_sdpo_sums_over_the_rejected() -> None:
    rejected, reference = [-26.0, -30.0, -22.0], [-24.0, -31.0, -25.0]
    total = sum(math.exp(0.5 * ((x - r) - (CHOSEN - REF_CHOSEN))) for x, r in zip(rejected, reference, strict=True))
    loss = preference.sdpo(
        one(CHOSEN),
        torch.tensor([rejected], dtype=torch.float64),
        one(REF_CHOSEN),
        torch.tensor([reference], dtype=torch.float64),
        beta=0.5,
    )
    assert loss.tolist() == pytest.approx([-log_sigmoid(-math.log(total))], rel=1e-12)


def test_sdpo_with_one_rejected_session_is_dpo() -> None:
    chosen, rejected, ref_chosen, ref_rejected = PAIR
    single = preference.sdpo(chosen, rejected[:, None], ref_chosen, ref_rejected[:, None], beta=0.3)
    assert single.tolist() == pytest.approx(preference.dpo(*PAIR, beta=0.3).tolist(), rel=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ipo", "cdpo", "rdpo"])
def test_gradients_are_right_and_raise_the_chosen(name: str) -> None:
    loss: Loss = getattr(preference, name)
    inputs = tuple(t.clone().requires_grad_() for t in PAIR)
    assert gradcheck(lambda *pair: loss(*pair, beta=0.3), inputs)
    loss(*inputs[:2], *PAIR[2:], beta=0.05).sum().backward()  # type: ignore[no-untyped-call]
    chosen, rejected = (t.grad for t in inputs[:2])
    assert chosen is not None
    assert rejected is not None
    assert chosen.item() < 0 < rejected.item()


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_losses_and_gradients_stay_finite_far_out(gap: float) -> None:
    chosen, rejected = (torch.tensor([x], requires_grad=True) for x in (0.0, -gap))
    zero = torch.zeros(1)
    losses = [
        *(getattr(preference, name)(chosen, rejected, zero, zero) for name in ("dpo", "ipo", "cdpo", "rdpo")),
        preference.cpo(chosen, rejected, tokens=15),
        preference.simpo(chosen, rejected, tokens=15),
        preference.sdpo(chosen, rejected[:, None].expand(1, 3), zero, torch.zeros(1, 3)),
    ]
    total = torch.stack(losses).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(t).all() for t in (*losses, chosen.grad, rejected.grad) if t is not None)


def test_losses_are_one_number_a_pair() -> None:
    pairs = tuple(torch.randn(7) for _ in range(4))
    assert preference.dpo(*pairs).shape == (7,)
    assert preference.margin(*pairs).shape == (7,)
