"""Norm, dropout, SwiGLU and attention against plain torch, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from onerec.model.attention import attend, causal_bias, padding_bias
from onerec.model.dropout import Dropout
from onerec.model.norm import EPSILON, RMSNorm
from onerec.model.precision import Linear, product_dtype
from onerec.model.swiglu import swiglu


def doubles(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)


def test_norm_is_rms_norm() -> None:
    norm = RMSNorm(6).double()
    torch.nn.init.normal_(norm.weight)
    x = doubles(3, 4, 6)
    expected = functional.rms_norm(x, (6,), norm.weight, EPSILON)
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=0)
    assert gradcheck(lambda x, weight: torch.func.functional_call(norm, {"weight": weight}, (x,)), (x, norm.weight))


def test_norm_hands_on_the_dtype_it_is_asked_for() -> None:
    norm, x = RMSNorm(8), torch.randn(4, 8, requires_grad=True)
    out = norm(x, torch.bfloat16)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x), rtol=1e-2, atol=1e-2)
    out.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_swiglu_is_silu_times_value() -> None:
    x = doubles(5, 8)
    gate, value = x.chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(x), functional.silu(gate) * value, rtol=1e-12, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(swiglu(x), functional.silu(gate) * value, rtol=1e-12, atol=0)
    assert gradcheck(swiglu, (x,))


@pytest.mark.parametrize("kind", ["free", "padding", "causal"])
def test_attention_with_gradients_equals_the_fused_kernel(kind: str) -> None:
    query, key, value = doubles(2, 2, 4, 3), doubles(2, 2, 4, 3, seed=1), doubles(2, 2, 4, 3, seed=2)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    bias = {"free": None, "padding": padding_bias(mask), "causal": causal_bias(4, query.device)}[kind]
    with torch.no_grad():
        fused = attend(query, key, value, bias)
    torch.testing.assert_close(attend(query, key, value, bias), fused, rtol=1e-10, atol=1e-12)
    assert gradcheck(lambda q, k, v: attend(q, k, v, bias), (query, key, value))


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    dropout, x = Dropout(0.25), torch.ones(1000, 1001)
    torch.manual_seed(3)
    out = dropout(x)
    zeros = float((out == 0).float().mean())
    assert abs(zeros - 0.25) < 0.002
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs(float(out.mean()) - 1.0) < 0.003
    assert abs(float((out[0] == 0).float().mean()) - 0.25) < 0.05


def test_dropout_is_decided_by_the_generator_and_off_in_eval() -> None:
    dropout, x = Dropout(0.5), torch.ones(64, 3)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert dropout(x).equal(first)
    assert not second.equal(first)
    assert dropout.eval()(x) is x


def test_dropout_bytes_are_even_in_every_place_of_a_word() -> None:
    dropout = Dropout(0.5)
    torch.manual_seed(0)
    kept = (dropout(torch.ones(20_000, 8)) > 0).float().mean(0)
    assert float((kept - 0.5).abs().max()) < 0.02


def test_linear_multiplies_in_the_dtype_of_its_input() -> None:
    linear, x = Linear(4, 3), torch.randn(2, 4)
    assert [name for name, _ in linear.named_parameters()] == ["weight"]
    assert linear(x).dtype == torch.float32
    low = linear(x.bfloat16())
    assert low.dtype == torch.bfloat16
    low.float().sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.dtype == torch.float32


def test_products_are_low_precision_only_where_it_is_wanted_and_fast() -> None:
    fast = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    assert product_dtype(True, torch.zeros(1)) is fast
    assert product_dtype(False, torch.zeros(1)) is torch.float32
    assert product_dtype(True, torch.zeros(1, dtype=torch.float64)) is torch.float64
