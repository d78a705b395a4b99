"""The compiled training kernels against torch: results, gradients, bits, and when torch computes instead."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onerec.compiled import COMPILERS, FLAGS
from onerec.elementwise import binding, check
from onerec.elementwise.binding import Compiled
from onerec.errors import DependencyMissingError
from onerec.model import elementwise, onerec
from onerec.model.attention import attend
from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.norm import ResidualNorm, RMSNorm
from onerec.model.swiglu import swiglu
from tests.model import toy


@pytest.fixture
def compiled() -> Compiled:
    """The kernels; skips the test where this machine has no compiler."""
    try:
        binding.build()
    except DependencyMissingError as error:
        pytest.skip(str(error))
    binding.load.cache_clear()
    kernels = binding.load()
    assert kernels is not None
    return kernels


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
    with elementwise.using(kernels):
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


def everything(dtype: torch.dtype) -> list[Tensor]:
    """All kernels on enough numbers for several threads, forward and backward."""
    torch.manual_seed(1)
    found = []
    norm = ResidualNorm(64)
    x, added = torch.randn(1501, 64, requires_grad=True), torch.randn(1501, 64).to(dtype).requires_grad_()
    both = norm(x, added, dtype)
    gates = torch.randn(1201, 96).to(dtype).requires_grad_()
    parts = [torch.randn(6, 4, 61, 16).to(dtype).requires_grad_() for _ in range(3)]
    for out, inputs in (
        (torch.cat([part.float() for part in both]), [x, added, norm.weight]),
        (swiglu(gates), [gates]),
        (attend(parts[0], parts[1], parts[2], None), parts),
    ):
        found += [out.detach(), *torch.autograd.grad((out.float() * torch.randn(out.shape)).sum(), inputs)]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_how_many_threads_there_are(compiled: Compiled, dtype: torch.dtype) -> None:
    """But for the products of attention, which are torch's: these are compared between equal numbers of threads."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            with elementwise.using(compiled):
                results.append(everything(dtype))
    finally:
        torch.set_num_threads(threads)
    of_norm_and_swiglu = slice(0, 6)
    for other in results[1:]:
        assert all(map(torch.equal, results[0][of_norm_and_swiglu], other[of_norm_and_swiglu]))
    assert all(map(torch.equal, results[2], results[3]))
    scores = torch.randn(2, 3, 400, 53)
    shares = []
    for count in (1, 3):
        torch.set_num_threads(count)
        shares.append(compiled.softmax(scores.clone(), None, 0.5).share)
    torch.set_num_threads(threads)
    assert torch.equal(*shares)


def test_bits_do_not_depend_on_the_compilers_choices(compiled: Compiled, tmp_path: Path) -> None:
    """Other instructions, fused multiply-adds where it could take them, and hardly any optimisation."""
    results = []
    for number, flags in enumerate((("-O1", "-mno-avx2", "-mno-avx"), ("-O2", "-mavx2", "-mfma"))):
        target = tmp_path / f"other-{number}.so"
        compiler = next(found for name in COMPILERS if (found := shutil.which(name)))
        command = [compiler, *FLAGS, *binding.FLAGS, *flags, "-o", str(target), str(binding.LIBRARY.main)]
        subprocess.run(command, check=True, capture_output=True)
        results.append(Compiled(target))
    for dtype in (torch.float32, torch.bfloat16):
        outputs = []
        for kernels in (compiled, *results):
            with elementwise.using(kernels):
                outputs.append(everything(dtype))
        for other in outputs[1:]:
            assert all(map(torch.equal, outputs[0], other))


@pytest.mark.parametrize("make", [RMSNorm(16), swiglu, lambda x: attend(x, x, x, None)])
def test_what_is_not_finite_stays_so(compiled: Compiled, make: Callable[[Tensor], Tensor]) -> None:
    """A step with such numbers is refused: they must not vanish on the way."""
    for value in (torch.nan, torch.inf):
        x = torch.randn(1, 1, 3, 16)
        x[0, 0, 1, 3] = value
        with elementwise.using(compiled):
            assert not make(x.requires_grad_()).isfinite().all()


def test_forbidden_keys_get_nothing_and_extreme_gates_are_exact(compiled: Compiled) -> None:
    bias = torch.zeros(13).masked_fill(torch.arange(13) > 4, -torch.inf)
    shares = compiled.softmax(100 * torch.randn(2, 2, 3, 13), bias, 1.0).share
    assert torch.equal(shares[..., 5:], torch.zeros(2, 2, 3, 8))
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 3))
    gates = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4, 1e30])
    x = torch.cat([gates, torch.ones(8)])[None]
    torch.testing.assert_close(compiled.swiglu(x)[0], torch.nn.functional.silu(gates), rtol=1e-6, atol=1e-12)


def test_torch_computes_what_they_are_not_for(compiled: Compiled) -> None:
    x = torch.randn(4, 16)
    with elementwise.using(compiled):
        assert elementwise.fitting(x, width=8) is compiled
        assert elementwise.fitting(x, width=12) is None
        assert elementwise.fitting(x.double(), width=8) is None
        assert elementwise.fitting(x.to("meta"), width=8) is None
        assert elementwise.fitting(x[:0], width=8) is None
        with torch.no_grad():
            assert elementwise.fitting(x, width=8) is None
        odd = RMSNorm(12)
        assert torch.equal(odd(x[:, :12]), _without(odd, x[:, :12]))
    assert elementwise.fitting(x, width=8) is None


def _without(norm: RMSNorm, x: Tensor) -> Tensor:
    with elementwise.using(None):
        out: Tensor = norm(x)
        return out


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
