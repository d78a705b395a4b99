"""The mean loss over positions: the form for CPUs, some positions at a time, against all of them at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.baselines.targets import cross_entropy

USERS, EXPOSURES, WIDTH, ITEMS = 9, 23, 8, 301


def _gradients(loss: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


def test_cross_entropy_is_that_of_all_logits_at_once() -> None:
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(USERS, EXPOSURES, WIDTH, generator=generator, requires_grad=True)
    table = torch.randn(ITEMS, WIDTH, generator=generator, requires_grad=True)
    bias = torch.randn(ITEMS, generator=generator, requires_grad=True)
    targets = torch.randint(ITEMS, (USERS, EXPOSURES), generator=generator)
    wanted = torch.rand(USERS, EXPOSURES, generator=generator) < 0.7

    loss = cross_entropy(states, table, targets, wanted, bias)
    whole = functional.cross_entropy(states[wanted] @ table.t() + bias, targets[wanted])

    torch.testing.assert_close(loss, whole)
    leaves = (states, table, bias)
    for own, expected in zip(_gradients(loss, leaves), _gradients(whole, leaves), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-7)
    assert not _gradients(cross_entropy(states, table, targets, wanted), (states,))[0][~wanted].any()
