"""The compiled training kernels against torch: results, gradients, bits, and when torch computes instead."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from onerec.compiled import COMPILERS, FLAGS, INCLUDE, Library
from onerec.errors import DependencyMissingError
from onerec.kernels import binding, check
from onerec.kernels.binding import Compiled
from onerec.model import backend, branches, onerec
from onerec.model.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    attend_projected,
    causal_bias,
    padding_bias,
)
from onerec.model.experts import mix
from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.norm import ResidualNorm, RMSNorm
from onerec.model.swiglu import FeedForward, swiglu
from tests.model import toy


class Kind(NamedTuple):
    """Which kernels a test is about."""

    source: Library
    products: bool

    def load(self, path: Path | None = None) -> Compiled:
        return Compiled(path or self.source.build(), products=self.products)


KINDS = {
    "avx2": (binding.AVX2, False),
    "avx512bf16": (binding.AVX512_BF16, True),
    "apart": (binding.AVX512_BF16, False),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Of each kind; skips the test where this processor does not have the instructions."""
    instructions, products = request.param
    if instructions == binding.AVX512_BF16 and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor does not multiply bfloat16")
    return Kind(binding.library_for(instructions), products)


@pytest.fixture
def compiled(kind: Kind) -> Compiled:
    """The kernels; skips the test where this machine has no compiler."""
    try:
        binding.build()
        return kind.load()
    except DependencyMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def multiplying(compiled: Compiled) -> Compiled:
    """Kernels that multiply by weights, too; skips the test for others."""
    if not compiled.branch_unit:
        pytest.skip("these leave products with weights to oneDNN")
    return compiled


@pytest.fixture
def looked_at_anew() -> Iterator[None]:
    """Nothing that was loaded or checked before the test counts in it, nor after it."""
    for cached in (binding.load, check.checked):
        cached.cache_clear()
    yield
    for cached in (binding.load, check.checked):
        cached.cache_clear()


@pytest.mark.parametrize("seed", range(5))
def test_results_and_gradients_are_those_of_torch(compiled: Compiled, seed: int) -> None:
    assert check.disagreement(compiled, seed) is None


def multiply_in(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onerec, "product_dtype", lambda *_: dtype)


def loss_and_gradients(kernels: Compiled | None, decoder: str) -> list[Tensor]:
    torch.manual_seed(0)
    config = toy.config(dropout=0.1, decoder=decoder, encoder_layers=0 if decoder == "lazy" else 2)
    model, of = onerec.OneRec(config).train(), toy.trie()
    model.bf16 = True
    with backend.using(kernels):
        memory = model.encode(toy.history([5, 0, 3, 8], 8, of))
        log_probs = token_log_probs(model, memory, toy.sessions(4, 2, of), of)
        loss = ntp_loss(log_probs, torch.ones(4, 2))
        loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(each.grad for each in model.parameters() if each.grad is not None)]


def distance(made: list[Tensor], wanted: list[Tensor]) -> float:
    """Of all numbers together: length of the difference, as a share of the length."""
    flat = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (made, wanted)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.mark.parametrize("decoder", ["encoder-decoder", "lazy"])
def test_a_model_learns_the_same_in_float32(compiled: Compiled, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    multiply_in(torch.float32, monkeypatch)
    made, wanted = loss_and_gradients(compiled, decoder), loss_and_gradients(None, decoder)
    assert distance(made, wanted) < 1e-5
    assert any(not torch.equal(a, b) for a, b in zip(made, wanted, strict=True)), "they were not used"


@pytest.mark.parametrize("decoder", ["encoder-decoder", "lazy"])
def test_in_bfloat16_they_are_as_near_to_float32_as_torch_is(
    compiled: Compiled, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiply_in(torch.float32, monkeypatch)
    exact = loss_and_gradients(None, decoder)
    multiply_in(torch.bfloat16, monkeypatch)
    theirs, mine = (distance(loss_and_gradients(kernels, decoder), exact) for kernels in (None, compiled))
    assert mine < 1.2 * theirs
    assert mine < 0.1


PRODUCTS = 1 + 12 + 1 + 4
"""So many results of `everything` come first that depend on products with weights."""


def everything(dtype: torch.dtype) -> list[Tensor]:
    """All kernels on enough numbers for several threads, forward and backward."""
    torch.manual_seed(1)
    found = []
    norm = ResidualNorm(64)
    x, added = torch.randn(1501, 64, requires_grad=True), torch.randn(1501, 64).to(dtype).requires_grad_()
    both = norm(x, added, dtype)
    gates = torch.randn(1201, 96).to(dtype).requires_grad_()
    whole = torch.randn(6, 61, 384).to(dtype).requires_grad_()
    parts = [torch.randn(6, 4, 61, 16).to(dtype).requires_grad_() for _ in range(3)]
    routed = check.experts(dtype)
    for out, inputs in (
        *((part, list(inputs)) for inputs, outputs in (of_a_stream(dtype), routed) for part in outputs),
        (torch.cat([part.float() for part in both]), [x, added, norm.weight]),
        (swiglu(gates), [gates]),
        (attend_projected(4, None, whole), [whole]),
        (attend(parts[0], parts[1], parts[2], None), parts),
    ):
        loss = (out.float() * torch.randn(out.shape)).sum()
        found += [out.detach(), *torch.autograd.grad(loss, inputs, retain_graph=True)]
    return found


def of_a_stream(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """All branches, on more rows than are packed at once, and what their results depend on."""
    x, added = torch.randn(15, 151, 64, requires_grad=True), torch.randn(15, 151, 64).to(dtype).requires_grad_()
    norms = [ResidualNorm(64) for _ in range(3)]
    layers = SelfAttention(64, 2), CrossAttention(64, 2), FeedForward(64, 48)
    total, more = branches.self_attention(norms[0], layers[0], x, added, None, dtype)
    total, more = branches.cross_attention(norms[1], layers[1], total, more, added, None)
    total, more = branches.feed_forward(norms[2], layers[2], total, more, dtype)
    weights = [weight for part in (*norms, *layers) for weight in part.parameters()]
    return [x, added, *weights], [total + more.float()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_how_many_threads_there_are(compiled: Compiled, dtype: torch.dtype) -> None:
    """But for products that are torch's: these are compared between equal numbers of threads."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            with backend.using(compiled):
                results.append(everything(dtype))
    finally:
        torch.set_num_threads(threads)
    low = dtype == torch.bfloat16
    ours = slice(0 if low and compiled.branch_unit else PRODUCTS, -4 if low and compiled.head_unit else -6)
    for other in results[1:]:
        assert all(map(torch.equal, results[0][ours], other[ours]))
    assert all(map(torch.equal, results[2], results[3]))
    scores = torch.randn(2, 3, 400, 53)
    shares = []
    for count in (1, 3):
        torch.set_num_threads(count)
        shares.append(compiled.softmax(scores.clone(), None, 0.5).share)
    torch.set_num_threads(threads)
    assert torch.equal(*shares)


def test_bits_do_not_depend_on_the_compilers_choices(compiled: Compiled, kind: Kind, tmp_path: Path) -> None:
    """Other instructions, fused multiply-adds where it could take them, and hardly any optimisation."""
    results = []
    fewest = () if compiled.head_unit else ("-mno-avx2", "-mno-avx")  # the others name their instructions
    for number, flags in enumerate((("-O1", *fewest), ("-O2", "-mavx2", "-mfma"))):
        target = tmp_path / f"other-{number}.so"
        compiler = next(found for name in COMPILERS if (found := shutil.which(name)))
        command = [compiler, *FLAGS, *kind.source.flags, *flags, INCLUDE, "-o", str(target), str(kind.source.main)]
        subprocess.run(command, check=True, capture_output=True)
        results.append(kind.load(target))
    for dtype in (torch.float32, torch.bfloat16):
        outputs = []
        for kernels in (compiled, *results):
            with backend.using(kernels):
                outputs.append(everything(dtype))
        for other in outputs[1:]:
            assert all(map(torch.equal, outputs[0], other))


def with_gradients(
    dtype: torch.dtype, kernels: Compiled | None, heads: int, bias: Tensor | None, projections: list[Tensor]
) -> list[Tensor]:
    """Attention of projections and the gradients of a weighted sum, computed in `dtype`."""
    inputs = [part.clone().requires_grad_() for part in projections]
    with backend.using(kernels):
        out = attend_projected(heads, bias, *(part.to(dtype) for part in inputs)).float()
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "width"),
    [(1, 1, 1, 32), (2, 31, 3, 32), (13, 13, 2, 64), (24, 64, 1, 128), (20, 151, 4, 64), (151, 151, 2, 32)],
)
@pytest.mark.parametrize("biased", [False, True])
def test_attention_of_projections_is_nearer_to_float32_than_torchs(
    compiled: Compiled, queries: int, keys: int, heads: int, width: int, *, biased: bool
) -> None:
    if not compiled.head_unit:
        pytest.skip("without products of bfloat16, attention is torch's")
    torch.manual_seed(queries)
    size = heads * width
    shapes = [(3, queries, 3 * size)] if queries == keys else [(3, queries, size), (3, keys, 2 * size)]
    projections = [(1.5 * torch.randn(shape)).bfloat16().float() for shape in shapes]
    bias = None
    if biased:
        there = torch.arange(keys) <= torch.tensor([[keys - 1], [keys // 2], [0]])
        bias = padding_bias(there)
        if queries == keys:
            bias = bias + causal_bias(keys, there.device)
    exact = with_gradients(torch.float32, None, heads, bias, projections)
    theirs, mine = (with_gradients(torch.bfloat16, kernels, heads, bias, projections) for kernels in (None, compiled))
    for made, other, wanted in zip(mine, theirs, exact, strict=True):
        assert distance([made], [wanted]) < 1.01 * distance([other], [wanted]) + 1e-6
        assert distance([made], [wanted]) < 0.006
    if biased:  # of a user without a history nothing but the first key is seen
        unseen = mine[-1][2, 1:, -2 * size :]
        assert torch.equal(unseen, torch.zeros_like(unseen))


Made = tuple[list[Tensor], tuple[Tensor, Tensor]]
"""What wants a gradient, and what a branch makes of the stream."""
Make = Callable[[torch.dtype], Made]


def fed(rows: int, width: int, hidden: int, *, low: bool = True) -> Make:
    def make(dtype: torch.dtype) -> Made:
        norm, layer = ResidualNorm(width), FeedForward(width, hidden)
        torch.nn.init.normal_(norm.weight)
        x, added = exact_numbers(1, rows, width), exact_numbers(1, rows, width)
        made = branches.feed_forward(norm, layer, x, added.to(dtype if low else torch.float32), dtype)
        return [x, added, *norm.parameters(), *layer.parameters()], made

    return make


def attending(samples: int, queries: int, keys: int | None, width: int, heads: int) -> Make:
    """Causal self-attention; over a memory of which samples have different parts where `keys` are given."""

    def make(dtype: torch.dtype) -> Made:
        norm = ResidualNorm(width)
        torch.nn.init.normal_(norm.weight)
        x = exact_numbers(samples, queries, width)
        if keys is None:
            own = SelfAttention(width, heads)
            made = branches.self_attention(norm, own, x, None, causal_bias(queries, x.device), dtype)
            return [x, *norm.parameters(), *own.parameters()], made
        memory, layer = exact_numbers(samples, keys, width), CrossAttention(width, heads)
        there = torch.arange(keys) <= torch.arange(samples)[:, None] * keys // samples
        made = branches.cross_attention(norm, layer, x, None, memory.to(dtype), padding_bias(there))
        return [x, memory, *norm.parameters(), *layer.parameters()], made

    return make


def exact_numbers(*shape: int) -> Tensor:
    """That bfloat16 holds."""
    return torch.randn(shape).bfloat16().float().requires_grad_()


def made_with_gradients(make: Make, dtype: torch.dtype, kernels: Compiled | None) -> list[Tensor]:
    torch.manual_seed(4)
    with backend.using(kernels):
        inputs, (total, out) = make(dtype)
        loss = (total * torch.randn(total.shape)).sum() + (out.float() * torch.randn(out.shape)).sum()
        return [total.detach(), out.detach(), *torch.autograd.grad(loss, inputs)]


BRANCHES: dict[str, Make] = {
    "one row": fed(1, 32, 16),
    "odd rows, half a panel": fed(97, 96, 48),
    "float32 added": fed(60, 64, 80, low=False),
    "more rows than are packed at once": fed(4001, 64, 48),
    "one position": attending(1, 1, None, 64, 2),
    "short samples": attending(9, 20, None, 64, 2),
    "long samples": attending(30, 151, None, 64, 1),
    "a memory": attending(5, 20, 37, 96, 3),
    "a long memory": attending(30, 19, 151, 64, 2),
}


@pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES)
def test_a_branch_is_as_near_to_float32_as_torch_is(multiplying: Compiled, make: Make) -> None:
    exact = made_with_gradients(make, torch.float32, None)
    theirs, mine = (made_with_gradients(make, torch.bfloat16, kernels) for kernels in (None, multiplying))
    assert torch.equal(mine[0], exact[0])
    assert not torch.equal(mine[1], theirs[1]) or theirs[1].numel() < 1000, "they were not used"
    for made, other, wanted in zip(mine[1:], theirs[1:], exact[1:], strict=True):
        assert distance([made], [wanted]) < 1.05 * distance([other], [wanted]) + 1e-3
        assert distance([made], [wanted]) < 0.008


def test_a_branch_goes_back_from_either_of_its_results_alone(multiplying: Compiled) -> None:
    make, found = fed(50, 64, 48), []
    for part in (0, 1, None):
        torch.manual_seed(2)
        with backend.using(multiplying):
            inputs, made = make(torch.bfloat16)
            outputs = [one.float() for one in (made if part is None else (made[part],))]
            found.append(torch.autograd.grad([one.sum() for one in outputs], inputs[:2]))
    for total, out, both in zip(*found, strict=True):
        torch.testing.assert_close(total + out, both, rtol=0.01, atol=0.02)
        assert not torch.equal(out, torch.zeros_like(out))


Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def routed(rows: int, experts: int, active: int) -> Rows:
    """Rows, gates, choices among all experts but the last one, and weights."""
    torch.manual_seed(rows)
    chosen = torch.rand(rows, max(1, experts - 1)).argsort(1)[:, :active]
    x, gates = exact_numbers(rows, 64), torch.rand(rows, active).requires_grad_()
    w_in, w_out = (torch.randn(shape).mul(0.2).requires_grad_() for shape in ((experts, 64, 96), (experts, 48, 64)))
    return x, gates, chosen, w_in, w_out


@pytest.mark.parametrize(("rows", "experts", "active"), [(1, 1, 1), (7, 9, 2), (500, 1, 1), (700, 3, 2), (33, 24, 4)])
def test_experts_are_as_near_to_a_plain_loop_over_them_as_torch_is(
    multiplying: Compiled, rows: int, experts: int, active: int
) -> None:
    def results(mixing: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        x, gates, chosen, w_in, w_out = routed(rows, experts, active)
        out = mixing(x.to(dtype), gates, chosen, w_in, w_out)
        return [out.detach(), *torch.autograd.grad((out * torch.randn(out.shape)).sum(), [x, gates, w_in, w_out])]

    def one_by_one(x: Tensor, gates: Tensor, chosen: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
        every = torch.stack([swiglu(x @ w_in[e]) @ w_out[e] for e in range(experts)], dim=1)  # [R, E, d]
        return (every[torch.arange(rows)[:, None], chosen] * gates.unsqueeze(-1)).sum(1)

    def by(kernels: Compiled | None) -> list[Tensor]:
        with backend.using(kernels):
            return results(lambda *routed: mix(*routed)[0], torch.bfloat16)

    exact, theirs, mine = results(one_by_one, torch.float32), by(None), by(multiplying)
    for made, other, wanted in zip(mine, theirs, exact, strict=True):
        assert distance([made], [wanted]) < 1.2 * distance([other], [wanted]) + 2e-3
        assert distance([made], [wanted]) < 0.008
    unused = mine[3][-1] if experts > 1 else torch.zeros(1)
    assert torch.equal(unused, torch.zeros_like(unused)), "a gradient of an expert that got no row"
    with backend.using(multiplying):
        x, gates, chosen, w_in, w_out = routed(rows, experts, active)
        assert (
            mix(x.bfloat16(), gates, chosen, w_in, w_out)[1].tolist()
            == torch.bincount(chosen.flatten(), minlength=experts).tolist()
        )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_in_branches_and_experts(multiplying: Compiled, value: float) -> None:
    x, gates, chosen, w_in, w_out = routed(60, 3, 2)
    spoiled = x.detach().clone()
    spoiled[5, 7] = value
    with backend.using(multiplying):
        out, _ = mix(spoiled.bfloat16().requires_grad_(), gates, chosen, w_in, w_out)
        _, fed_on = branches.feed_forward(
            ResidualNorm(64), FeedForward(64, 48), spoiled.requires_grad_(), None, torch.bfloat16
        )
    for made in (out, fed_on):
        assert not made[5].isfinite().all()
        assert made[6:].isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_in_attention_of_projections(compiled: Compiled, value: float) -> None:
    for column in (3, 70, 140):  # of queries, keys and values
        x = torch.randn(2, 5, 192)
        x[0, 2, column] = value
        with backend.using(compiled):
            out = attend_projected(2, None, x.bfloat16().requires_grad_())
        assert not out[0].isfinite().all()
        assert out[1].isfinite().all()


@pytest.mark.parametrize("make", [RMSNorm(16), swiglu, lambda x: attend(x, x, x, None)])
def test_what_is_not_finite_stays_so(compiled: Compiled, make: Callable[[Tensor], Tensor]) -> None:
    """A step with such numbers is refused: they must not vanish on the way."""
    for value in (torch.nan, torch.inf):
        x = torch.randn(1, 1, 3, 16)
        x[0, 0, 1, 3] = value
        with backend.using(compiled):
            assert not make(x.requires_grad_()).isfinite().all()


def test_forbidden_keys_get_nothing_and_extreme_gates_are_exact(compiled: Compiled) -> None:
    bias = torch.zeros(13).masked_fill(torch.arange(13) > 4, -torch.inf)
    shares = compiled.softmax(100 * torch.randn(2, 2, 3, 13), bias, 1.0).share
    assert torch.equal(shares[..., 5:], torch.zeros(2, 2, 3, 8))
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 3))
    gates = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4, 1e30])
    x = torch.cat([gates, gates, torch.ones(16)])[None]
    torch.testing.assert_close(compiled.swiglu(x)[0, :8], torch.nn.functional.silu(gates), rtol=1e-6, atol=1e-12)


def test_torch_computes_what_they_are_not_for(compiled: Compiled) -> None:
    x, width = torch.randn(4, 16), compiled.lanes
    with backend.using(compiled):
        assert backend.fitting(x, width=width) is compiled
        assert backend.fitting(x, width=width + 4) is None
        assert backend.fitting(x.double(), width=width) is None
        assert backend.fitting(x.to("meta"), width=width) is None
        assert backend.fitting(x[:0], width=width) is None
        with torch.no_grad():
            assert backend.fitting(x, width=width) is None
        odd = RMSNorm(12)
        assert torch.equal(odd(x[:, :12]), _without(odd, x[:, :12]))
        low = torch.randn(2, 5, 3 * 64).bfloat16()
        assert backend.attending(2, low) is (compiled if compiled.head_unit else None)
        assert backend.attending(4, low) is None, "heads of 16"
        assert backend.attending(2, low.float()) is None
        stream, weight, bf16 = torch.randn(2, 64), torch.randn(64, 64), torch.bfloat16
        branching = compiled if compiled.branch_unit else None
        assert backend.branching(stream, None, weight, dtype=bf16, inner=32) is branching
        assert backend.branching(stream, None, weight, dtype=torch.float32, inner=32) is None
        assert backend.branching(stream, None, weight.bfloat16(), dtype=bf16, inner=32) is None
        assert backend.branching(stream, None, weight, dtype=bf16, inner=16) is None
        assert backend.branching(stream[:, :48], None, weight, dtype=bf16, inner=32) is None
    assert backend.fitting(x, width=width) is None


def _without(norm: RMSNorm, x: Tensor) -> Tensor:
    with backend.using(None):
        out: Tensor = norm(x)
        return out


def test_with_tiles_products_are_left_to_onednn(
    compiled: Compiled, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is faster by them; a step's bits are others then, so the kernels have another name."""
    monkeypatch.setattr(binding, "machine", lambda: {"features": "avx2, avx512f, avx512_bf16, amx_bf16"})
    with_tiles = Compiled(kind.source.build())
    assert with_tiles.branch_unit == 0
    assert with_tiles.head_unit == compiled.head_unit
    assert (with_tiles.name == compiled.name) == (compiled.branch_unit == 0)


@pytest.mark.usefixtures("looked_at_anew")
def test_kernels_that_compute_something_else_are_not_used(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = Compiled.swiglu_backward
    monkeypatch.setattr(Compiled, "swiglu_backward", lambda self, x, grad: 1.001 * right(self, x, grad))
    assert check.checked() is None
    assert "differ from torch in activations, tensor 1" in caplog.text


@pytest.mark.usefixtures("looked_at_anew")
def test_without_the_library_torch_computes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert check.checked() is None
    assert "`python -m trainer kernels` makes them" in caplog.text
    binding.LIBRARY.path().parent.mkdir(parents=True)
    binding.LIBRARY.path().write_bytes(b"no library")
    binding.load.cache_clear()
    check.checked.cache_clear()
    assert check.checked() is None
    assert "cannot be loaded" in caplog.text


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DependencyMissingError, match=r"Install g\+\+|no AVX2"):
        binding.build()
