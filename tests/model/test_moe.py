"""The sparse mixture of experts against a dense loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from onerec.model.moe import SparseMoE
from tests.model.toy import assert_equal


def made(experts: int = 5, active: int = 2, dtype: torch.dtype = torch.float64) -> SparseMoE:
    torch.manual_seed(0)
    moe = SparseMoE(6, 4, experts, active)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(moe.bias)
    return moe.to(dtype)


def dense_loop(moe: SparseMoE, x: Tensor) -> Tensor:
    """Every expert on every row, gates as the paper writes them."""
    scores = torch.softmax(x @ moe.centroids.t(), dim=-1)
    total = torch.zeros_like(x)
    for row in range(len(x)):
        for expert in (scores[row] + moe.bias).topk(moe.active).indices.tolist():
            gate, value = (x[row] @ moe.w_in[expert]).chunk(2)
            update = scores[row, expert] * ((functional.silu(gate) * value) @ moe.w_out[expert])
            total = total + update * functional.one_hot(torch.tensor(row), len(x)).unsqueeze(1)
    return total


@pytest.mark.parametrize(("experts", "active", "rows"), [(5, 2, 13), (5, 1, 4), (3, 3, 7), (8, 2, 1)])
def test_forward_and_gradients_equal_the_dense_loop(experts: int, active: int, rows: int) -> None:
    moe = made(experts, active)
    x = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    inputs = [x, *moe.parameters()]
    expected, out = dense_loop(moe, x), moe(x)
    assert_equal(out, expected)
    direction = torch.randn_like(out)
    for grad, reference in zip(
        torch.autograd.grad(out, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        assert_equal(grad, reference)
    with torch.no_grad():
        assert_equal(moe(x), expected)


def test_gates_are_not_renormalised_and_ignore_the_bias() -> None:
    moe, x = made(), torch.randn(9, 6, dtype=torch.float64)
    gates, chosen = moe.route(x)
    scores = torch.softmax(x @ moe.centroids.t(), dim=-1)
    assert_equal(gates, scores.gather(1, chosen))
    assert gates.sum(1).max() < 1.0
    assert chosen.equal((scores + moe.bias).topk(2).indices)


def test_load_counts_every_row_k_times() -> None:
    moe = made()
    moe(torch.randn(11, 6, dtype=torch.float64))
    assert moe.load.sum() == 22
    moe(torch.randn(0, 6, dtype=torch.float64))
    assert moe.load.tolist() == [0] * 5


def test_no_rows_give_zero_gradients() -> None:
    moe = made()
    x = torch.randn(0, 6, dtype=torch.float64, requires_grad=True)
    moe(x).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in (moe.w_in, moe.w_out))


def test_bias_rises_for_the_idle_and_falls_for_the_busy() -> None:
    moe = made()
    before = moe.bias.clone()
    moe.load = torch.tensor([10, 0, 4, 4, 2])
    moe.update_bias(0.5)
    assert (moe.bias - before).tolist() == pytest.approx([-0.5, 0.5, 0.0, 0.0, 0.5])


def test_balancing_evens_the_load() -> None:
    moe = made(experts=8, dtype=torch.float32)
    torch.nn.init.zeros_(moe.bias)
    x = torch.randn(256, 6)
    spread = []
    for _ in range(300):
        with torch.no_grad():
            moe(x)
        spread.append(float(moe.load.float().std()))
        moe.update_bias(0.003)
    assert sum(spread[-10:]) / 10 < 0.3 * spread[0]


def test_low_precision_rounds_row_counts_up_without_changing_the_result() -> None:
    moe, x = made(dtype=torch.float32), torch.randn(40, 6)
    low = moe(x.bfloat16())  # with gradients: slots are rounded up
    with torch.no_grad():
        torch.testing.assert_close(moe(x.bfloat16()), low, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(low, moe(x), rtol=0.1, atol=0.1)
    low.sum().backward()
    moe_grad = moe.w_in.grad
    assert moe_grad is not None
    reference = torch.autograd.grad(moe(x).sum(), moe.w_in)[0]
    torch.testing.assert_close(moe_grad, reference, rtol=0.2, atol=0.05 * float(reference.abs().max()))
