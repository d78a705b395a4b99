"""Which kernels decode: the choice by a clock of the test's own, and the real kernels of this processor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

from inference.__main__ import app
from inference.engine.native import binding, calibration, check
from inference.engine.native.binding import Kernels
from inference.engine.native.calibration import Work, calibrate, choose, fastest
from inference.engine.native.check import TORCH
from inference.engine.native.weights import fits
from inference.engine.search import Engine
from onerec.errors import SettingsError
from onerec.model.presets import preset
from onerec.settings import load_settings
from tests.inference import toys
from tests.inference.compiling import build_kernels
from tests.inference.test_native import shape

SMALL = preset("small")


class Clock:
    """Goes on by what work takes."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def work(self, name: str, took_s: Callable[[int], float]) -> Work:
        """Takes `took_s(call)` seconds each time; its first call is the warm-up."""
        calls = 0

        def work() -> None:
            nonlocal calls
            self.order.append(name)
            self.now_s += took_s(calls)
            calls += 1

        return work


def test_what_takes_least_time_decodes_and_its_sentence_says_so() -> None:
    clock = Clock()
    works = {
        "a": clock.work("a", lambda _: 4e-3),
        "b": clock.work("b", lambda _: 1e-3),
        "c": clock.work("c", lambda _: 2e-3),
    }
    found = calibrate(lambda: works, clock=clock, budget_s=0.1)
    assert found.chosen == "b"
    assert found.seconds == pytest.approx({"a": 4e-3, "b": 1e-3, "c": 2e-3})
    assert found.sentence().startswith("b decodes: a block's step with 256 beams takes 1 ms, 4 by a, 2 by c (cal")


def test_it_ends_within_its_budget_but_every_contender_is_timed_once() -> None:
    clock = Clock()
    slow = {name: clock.work(name, lambda _: 1.0) for name in ("a", "b")}
    assert calibrate(lambda: slow, clock=clock, budget_s=0.1).took_s == 4.0
    clock = Clock()
    quick = {"a": clock.work("a", lambda _: 0.01)}
    assert calibrate(lambda: quick, clock=clock, budget_s=0.1).took_s <= 0.1 + 0.01 + 1e-9


def test_a_disturbance_does_not_count_and_contenders_take_turns() -> None:
    """Others use the machine for a while: three of four of a's calls take ten times as long."""
    clock = Clock()
    works = {
        "a": clock.work("a", lambda call: 0.001 if call % 4 == 3 else 0.01),
        "b": clock.work("b", lambda _: 0.002),
    }
    found = calibrate(lambda: works, clock=clock, budget_s=0.1)
    assert found.chosen == "a"
    assert clock.order[:6] == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"amx_bf16": 1.0, "avx512_bf16": 0.95, TORCH: 0.92}, "amx_bf16"),
        ({"amx_bf16": 1.0, "avx512_bf16": 0.8, TORCH: 0.75}, "avx512_bf16"),
        ({"amx_bf16": 1.0, "avx512_bf16": 8.0, TORCH: 0.8}, TORCH),
        ({"avx512_bf16": 1.0, TORCH: 0.1}, TORCH),
        ({"avx512_bf16": 1.0, TORCH: 1.1}, "avx512_bf16"),
    ],
)
def test_one_that_is_faster_by_less_than_noise_is_not_preferred(seconds: dict[str, float], chosen: str) -> None:
    assert fastest(seconds) == chosen


@pytest.mark.parametrize("name", ["small", "base", "1b"])
def test_what_is_timed_is_a_block_of_the_model(name: str) -> None:
    config = preset(name)
    one = calibration.thin(config)
    assert fits(one)
    assert (one.d_model, one.heads, one.active_experts) == (config.d_model, config.heads, config.active_experts)
    assert one.beam_width == config.beam_width
    weights = one.experts * 3 * one.d_model * one.expert_hidden
    assert weights <= max(calibration.MOST_EXPERT_WEIGHTS, one.active_experts * 3 * one.d_model * one.expert_hidden)


def kernels(kind: str, dtype: torch.dtype) -> Kernels:
    class Named:
        pass

    one: Any = Named()
    one.kind, one.dtype = kind, dtype
    return cast(Kernels, one)


AMX, AVX512 = kernels("amx_bf16", torch.bfloat16), kernels("avx512_bf16", torch.bfloat16)
INT16, FLOAT32 = kernels("avx2_int16", torch.int16), kernels("avx2", torch.float32)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Kernels, ...]]:
    """What was to be timed; torch wins."""
    asked: list[tuple[Kernels, ...]] = []

    def found(_: Any, contenders: tuple[Kernels, ...], __: Any) -> calibration.Calibration:
        asked.append(contenders)
        return calibration.Calibration({TORCH: 1.0}, TORCH, 0.0)

    monkeypatch.setattr(calibration, "calibration", found)
    return asked


def test_kernels_of_bfloat16_are_timed_against_torch(timed: list[tuple[Kernels, ...]]) -> None:
    assert choose(SMALL, [AMX, AVX512], torch.float32) is None
    assert timed == [(AMX, AVX512)]


def test_where_there_is_no_choice_nothing_is_timed(timed: list[tuple[Kernels, ...]]) -> None:
    assert choose(SMALL, [INT16, FLOAT32], torch.float32) is INT16
    assert choose(SMALL, [], torch.float32) is None
    assert choose(SMALL, [AVX512], torch.float32, named=True) is AVX512
    assert not timed


@pytest.fixture
def built() -> list[Kernels]:
    """Every kind that this processor can run."""
    if not binding.kinds():
        pytest.skip("this processor has neither AVX-512 with bfloat16 nor AVX2")
    build_kernels()
    return [found for kind in binding.kinds() if (found := binding.load(kind)) is not None]


def test_the_kernels_of_this_processor_are_timed_and_random_numbers_stay_what_they_are(
    built: list[Kernels], caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is a choice and, to see that they can be timed, where there is none."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    calibration.calibration.cache_clear()
    with caplog.at_level(logging.INFO):
        found, again = (calibration.calibration(SMALL, tuple(built), torch.float32) for _ in range(2))
    calibration.calibration.cache_clear()
    assert torch.equal(torch.rand(4), expected)
    assert again is found, "once in a process"
    assert caplog.text.count(found.sentence()) == 1
    assert list(found.seconds) == [*binding.kinds(), TORCH]
    assert all(0 < seconds < 1 for seconds in found.seconds.values())


def test_a_setting_names_what_decodes(built: list[Kernels]) -> None:
    model = toys.model(shape())
    for one in built:
        engine = Engine(model, kernels=one.kind)
        assert (engine.kernels, engine.dtype) == (one.kind, one.dtype)
    assert Engine(model).kernels in {TORCH, *binding.kinds()}
    engine = Engine(model, kernels=TORCH)
    assert (engine.kernels, engine.native) == (TORCH, False)
    assert load_settings(inference={"decoding": {"kernels": "torch"}}).inference.decoding.kernels == TORCH


def test_kernels_that_cannot_decode_here_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "kinds", lambda: ("avx2_int16", "avx2"))
    check.require("auto")
    check.require(TORCH)
    with pytest.raises(SettingsError, match="is amx_bf16, but this processor runs avx2_int16 and avx2"):
        check.require("amx_bf16")
    monkeypatch.setattr(check, "_checked", lambda _: None)
    with pytest.raises(SettingsError, match="not built here or do not agree with torch"):
        check.require("avx2")


def test_the_command_says_what_decodes_each_preset(built: list[Kernels]) -> None:
    said = CliRunner().invoke(app, ["kernels"])
    assert said.exit_code == 0, said.output
    for name in ("small", "base", "1b"):
        assert f"preset {name}: " in said.output
    assert " decodes: " in said.output
    assert len(built) == said.output.count("decode kernels: ")
