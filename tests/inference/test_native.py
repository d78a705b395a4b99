"""The compiled decode kernels against torch: equal within rounding, whatever the shapes, beams and threads."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.engine.native import binding, check
from inference.engine.native.check import TORCH
from inference.engine.native.weights import fits
from inference.engine.search import Engine
from onerec.errors import DependencyMissingError
from onerec.model.presets import PRESETS, ModelConfig
from tests.inference import toys
from tests.inference.compiling import build_kernels, forget_libraries
from tests.inference.test_search import all_items, teacher_forced

BEAMS = 24


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    if not binding.kinds():
        pytest.skip("this processor has neither AVX-512 with bfloat16 nor AVX2")
    build_kernels()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def shape(**changes: Any) -> ModelConfig:
    return toys.config(**({"d_model": 64, "encoder_layers": 2, "dropout": 0.0} | changes))


def tolerance(engine: Engine) -> float:
    """Of the log-probability of a session."""
    return {torch.float32: 1e-3, torch.int16: 0.2, torch.bfloat16: 0.5, torch.int8: 1.0}[engine.dtype]


def near_in_bfloat16(found: Tensor, exact: Tensor) -> None:
    """Log-probabilities of whole sessions. A few are far off: those with a token that went to another expert."""
    off = (found - exact).abs().flatten()
    assert float(off.mean()) < 0.1
    assert float(off.quantile(0.9)) < 0.3
    assert float(off.max()) < 2.0


SHAPES = {
    "experts": shape(),
    "dense": shape(experts=1, active_experts=1),
    "three-active": shape(experts=5, active_experts=3),
    "wide-heads": shape(d_model=128, heads=2),
    "widest-heads": shape(d_model=128, heads=1),
    "head-of-96": shape(d_model=96, heads=1),
    "codes-as-tokens": shape(history_tokens="codes", history_items=30),
    "odd-codes": shape(codes=23),
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("widths", [BEAMS, (BEAMS, 7, 3), 1])
def test_it_finds_what_torch_finds(config: ModelConfig, widths: int | tuple[int, ...]) -> None:
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [0, 3, config.history_items, 5])
    ours, theirs = Engine(model), Engine(model, native=False)
    assert ours.native
    assert not theirs.native
    found, expected = (engine.generate(history, catalogue, beam_width=widths) for engine in (ours, theirs))
    atol = tolerance(ours)
    if ours.dtype == torch.bfloat16:
        # A choice may fall otherwise, and few beams do not make up for it: what is found is worth what is said of it.
        near_in_bfloat16(found.log_probs, teacher_forced(model, history, found.sessions, catalogue).sum(-1))
    else:
        torch.testing.assert_close(found.log_probs, expected.log_probs, atol=atol, rtol=0)
    if ours.dtype == torch.float32:
        best = found.sessions[:, 0] == expected.sessions[:, 0]
        tied = (expected.log_probs[:, :1] - expected.log_probs[:, 1:2]).abs() < atol if widths == BEAMS else True
        assert bool((best | tied).all())


@pytest.mark.parametrize("kind", binding.kinds())
def test_wide_beams_are_brute_force(kind: str) -> None:
    config = shape()
    model, catalogue = toys.model(config), toys.catalogue(config, 300)
    history = toys.histories(config, catalogue, [4, 8])
    engine = Engine(model, kernels=kind)
    found = engine.rank(history, catalogue, beam_width=512)
    expected = all_items(model, history, catalogue)
    assert found.sessions.shape[1] >= 300
    for row in range(2):
        real = found.sessions[row, :, 0] >= 0
        leaves = found.sessions[row, real, 0]
        assert leaves.sort().values.tolist() == list(range(300))
        torch.testing.assert_close(found.log_probs[row, real], expected[row, leaves], atol=tolerance(engine), rtol=0)


def test_an_answer_depends_neither_on_the_batch_nor_on_the_threads(threads: Callable[[int], None]) -> None:
    config = shape()
    model, catalogue = toys.model(config), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 0, 5, 2, 7])
    engine = Engine(model)
    together = engine.generate(history, catalogue, beam_width=BEAMS)
    threads(2)
    two_threads = engine.generate(history, catalogue, beam_width=BEAMS)
    for one, other in zip(together, two_threads, strict=True):
        assert torch.equal(one, other)
    for row in range(5):
        alone = type(history)(*(part[row : row + 1] for part in (history.codes, history.labels, history.mask)))
        single = engine.generate(alone, catalogue, beam_width=BEAMS)
        assert torch.equal(single.log_probs[0], together.log_probs[row])
        assert torch.equal(single.sessions[0], together.sessions[row])


def test_constraints_hold() -> None:
    config = shape()
    model, catalogue = toys.model(config), toys.catalogue(config, 60)
    history = toys.histories(config, catalogue, [3, 3])
    found = Engine(model).generate(history, catalogue, beam_width=BEAMS, exclude=[torch.arange(30), torch.arange(5)])
    assert int(found.sessions[0].min()) >= 30
    assert int(found.sessions[1].min()) >= 5
    assert all(len(set(session)) == config.session_items for session in found.sessions.flatten(0, 1).tolist())


def test_shapes_that_do_not_fit_are_decoded_by_torch() -> None:
    assert {name for name, config in PRESETS.items() if fits(config)} == {"small", "base", "1b"}
    assert not Engine(toys.model(toys.config())).native


def test_precise_log_probs_are_those_of_the_model() -> None:
    model = toys.model(shape())
    engine = Engine(model, precise=True)
    assert engine.dtype == torch.float32
    assert engine.native == ("avx2" in binding.kinds())


@pytest.mark.parametrize("kind", binding.kinds())
def test_each_kind_agrees_with_torch(kind: str) -> None:
    loaded = binding.load(kind)
    assert loaded is not None
    assert check.disagreement(loaded) < check.BOUNDS[loaded.dtype]


@pytest.fixture(params=binding.kinds())
def kernels(request: pytest.FixtureRequest) -> binding.Kernels:
    loaded = binding.load(request.param)
    assert loaded is not None
    return loaded


def product(kernels: binding.Kernels, rows: Tensor, matrix: Tensor) -> Tensor:
    """By the kernels."""
    (count, k), n = rows.shape, matrix.shape[1]
    packed = torch.empty(kernels.packed_elements(k, n), dtype=kernels.dtype)
    kernels.pack(matrix.data_ptr(), k, n, packed.data_ptr())
    kept, result = rows.to(kernels.kept).contiguous(), torch.empty(count, n)
    kernels.product(kept.data_ptr(), count, packed.data_ptr(), k, n, result.data_ptr())
    return result


@pytest.mark.parametrize("count", [1, 5, 13, 256])
@pytest.mark.parametrize("k", [32, 256, 688, 2816])
def test_products_are_those_of_torch(kernels: binding.Kernels, count: int, k: int) -> None:
    torch.manual_seed(count + k)
    rows, matrix = torch.randn(count, k), torch.randn(k, 64)
    bound = {torch.float32: 2e-5, torch.int16: 6e-3, torch.bfloat16: 2e-2, torch.int8: 8e-2}[kernels.dtype]
    difference = product(kernels, rows, matrix) - rows @ matrix
    assert float(difference.abs().max()) < bound * k**0.5


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_largest_sums_do_not_overflow(kernels: binding.Kernels, size: float) -> None:
    """All elements as large as the largest, so that nothing cancels: the case that integers could not hold."""
    rows, matrix = torch.full((7, 2816), size), torch.full((2816, 32), -1.0)
    torch.testing.assert_close(product(kernels, rows, matrix), rows @ matrix, rtol=5e-3, atol=0)


def test_rows_and_columns_of_other_sizes_do_not_disturb_one_another(kernels: binding.Kernels) -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([1e-6, 1.0, 1e6, 0.0])
    rows, matrix = torch.randn(4, 256), torch.randn(256, 32)
    rows *= sizes.unsqueeze(1)
    matrix[:, ::2] *= 1e4
    exact = rows.double() @ matrix.double()
    scale = sizes.double().unsqueeze(1) * matrix.double().norm(dim=0)
    bound = 4e-2 if kernels.dtype == torch.int8 else 1e-2
    assert float(((product(kernels, rows, matrix) - exact).abs() / scale.clamp_min(1e-30)).max()) < bound


def test_a_processor_decodes_with_integers_of_8_bits_only_where_they_are_named() -> None:
    model, coarse = toys.model(shape()), [kind for kind in binding.kinds() if kind in binding.COARSE]
    assert Engine(model).kernels not in coarse
    assert not {kernels.kind for kernels in check.usable(model.config)} & set(coarse)
    assert [Engine(model, kernels=kind).kernels for kind in coarse] == coarse
    precise = [Engine(model, kernels=kind, precise=True) for kind in coarse]
    assert not [engine for engine in precise if engine.dtype == torch.int8]


@pytest.mark.parametrize("kind", binding.kinds())
def test_the_fast_kernels_choose_as_float32_does(kind: str) -> None:
    """Quality: the best session of float32 is the best or, within rounding, tied with it."""
    config = shape(d_model=128, heads=4, history_tokens="codes", history_items=30)
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [30, 3, 17, 9, 25, 1, 12, 28] * 4)
    ours, theirs = (Engine(model, kernels=own).generate(history, catalogue, beam_width=32) for own in (kind, TORCH))
    same = (ours.sessions[:, 0] == theirs.sessions[:, 0]).all(-1).float().mean()
    kept = [
        len(set(map(tuple, one.tolist())) & set(map(tuple, other.tolist()))) / 32
        for one, other in zip(ours.sessions, theirs.sessions, strict=True)
    ]
    same_at_least, kept_at_least = (0.7, 0.8) if kind in binding.COARSE else (0.8, 0.9)
    assert same >= same_at_least
    assert sum(kept) / len(kept) >= kept_at_least


def test_kernels_that_are_wrong_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(check, "BOUNDS", dict.fromkeys(check.BOUNDS, 0.0))
    check._checked.cache_clear()
    with caplog.at_level(logging.ERROR):
        engine = Engine(toys.model(shape()))
    check._checked.cache_clear()
    assert not engine.native
    assert "differ from torch" in caplog.text


def looked_up_anew() -> Engine:
    """An engine that looks for libraries as a process does that has just started; what it found is forgotten."""
    forget_libraries()
    try:
        return Engine(toys.model(shape()))
    finally:
        forget_libraries()


def test_without_a_library_torch_decodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not looked_up_anew().native


def test_a_library_that_cannot_be_loaded_leaves_decoding_to_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where torch has another OpenMP."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for kind in binding.kinds():
        binding.path(kind).parent.mkdir(parents=True, exist_ok=True)
        binding.path(kind).write_bytes(b"no library")
    assert not looked_up_anew().native
    assert "cannot be loaded, torch decodes" in caplog.text


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DependencyMissingError, match="Install g\\+\\+"):
        binding.build()


def test_what_a_compiler_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an older one that has AVX-512 and no AMX."""

    class Known:
        def __init__(self, kind: str) -> None:
            self._kind = kind

        def build(self) -> Path:
            if self._kind == "amx_bf16":
                raise DependencyMissingError(
                    "c++ cannot compile them: unrecognised option -mamx-tile.", "Take a newer one."
                )
            return tmp_path / self._kind

    monkeypatch.setattr(binding, "library", Known)
    monkeypatch.setattr(binding, "kinds", lambda: ("amx_bf16", "avx512_bf16"))
    assert binding.build() == [tmp_path / "avx512_bf16"]
    monkeypatch.setattr(binding, "kinds", lambda: ("amx_bf16",))
    with pytest.raises(DependencyMissingError, match="mamx-tile"):
        binding.build()
