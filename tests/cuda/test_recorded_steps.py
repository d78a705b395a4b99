"""Training steps as CUDA graphs: the bits of the same step without them, whenever a shape was recorded."""

from __future__ import annotations

import copy
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from onerec.model.presets import ModelConfig
from onerec.settings import SeedSettings, TrainerSettings
from tests.trainer import toy
from tests.trainer.test_checkpoint import SURROUNDINGS
from tests.trainer.test_seed import samples
from tests.trainer.test_step import copied, same
from trainer import recorded
from trainer.admission import StepInput
from trainer.budget import SampleCount
from trainer.checkpoint import Checkpoints
from trainer.environment import make_deterministic
from trainer.recorded import RecordedGradients
from trainer.seed import SeedStep, train_seed
from trainer.state import TrainState
from trainer.step import apply_step, records
from trainer.update import NON_FINITE

BFLOAT16 = dataclasses.replace(toy.TINY, bf16=True)
SHAPES = {
    "experts": dataclasses.replace(BFLOAT16, dropout=0.2),
    "dense": dataclasses.replace(BFLOAT16, experts=1, active_experts=1, dropout=0.2),
    "codes-as-tokens": dataclasses.replace(BFLOAT16, history_tokens="codes", dropout=0.2),
}
STEPS, UNCOVERED = 14, (8, 11)


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def stream() -> list[StepInput]:
    """Batches of three sizes, a pair now and then, two steps without a positive, and a catalogue that grows."""
    inputs = []
    for step in range(STEPS):
        count = (4, 11, 7)[step % 3]
        sessions = [
            toy.session(
                100 * step + k,
                range(1 + (step + k) % 40, 2 + (step + k) % 40 + k % 3),
                history=range(k % 9),
                labels=0 if step in UNCOVERED else k % 4,
            )
            for k in range(count)
        ]
        pairs = [toy.pair(step, [1, 2, 3], [4, 5, 6], (-12.0, -12.0))] if step % 4 == 0 else []
        known = toy.catalogue(range(toy.ITEMS - (4 if step < STEPS // 2 else 0)))
        inputs.append(toy.step_input(sessions, pairs, first_offset=20 * step, known=known))
    return inputs


def new(config: ModelConfig, device: torch.device, **settings: Any) -> TrainState:
    state = TrainState.new(
        config, TrainerSettings(**({"warmup_steps": 0, "batch": 16, "cuda_graphs": True} | settings))
    )
    state.move(device)
    return state


def graphs(state: TrainState) -> int:
    return 0 if state.recorded is None else state.recorded.graphs


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_recorded_steps_have_the_bits_of_the_same_steps_without_graphs(
    device: torch.device, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_graphs = new(config, device)
    assert records(with_graphs)
    results = [apply_step(with_graphs, step_input) for step_input in stream()]
    assert graphs(with_graphs) == 3, "8 rows, 16 rows, and 8 of which none is covered, come more than once"
    monkeypatch.setattr(recorded, "RECORDED_FROM", 1 << 30)
    without = new(config, device)
    expected = [apply_step(without, step_input) for step_input in stream()]
    assert graphs(without) == 0
    assert results == expected
    assert same(copied(with_graphs.tensors()), copied(without.tensors()))
    biases = [
        [module.bias for module in s.onerec.modules() if hasattr(module, "update_bias")] for s in (with_graphs, without)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*biases, strict=True))


def test_they_learn_what_steps_in_exact_shapes_learn(device: torch.device) -> None:
    fixed, exact = (new(BFLOAT16, device, cuda_graphs=graphs, learning_rate=1e-3) for graphs in (True, False))
    assert records(fixed)
    assert not records(exact)
    for step_input in stream():
        found, expected = apply_step(fixed, step_input), apply_step(exact, step_input)
        assert found.losses == pytest.approx(expected.losses, rel=5e-2, abs=2e-2)
        assert (found.sessions, found.pairs, found.refused) == (expected.sessions, expected.pairs, None)


def test_a_checkpoint_goes_on_with_the_same_bits_before_anything_is_recorded_again(
    device: torch.device, tmp_path: Path
) -> None:
    state, inputs = new(SHAPES["experts"], device), stream()
    for step_input in inputs[:8]:
        apply_step(state, step_input)
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    found = Checkpoints(tmp_path, keep=1).load(SHAPES["experts"], state.settings)
    assert found is not None
    loaded = found[0]
    loaded.move(device)
    assert graphs(loaded) == 0
    assert graphs(state) > 0
    for step_input in inputs[8:]:
        assert apply_step(loaded, step_input) == apply_step(state, step_input)
    assert same(loaded.tensors(), state.tensors())


def test_a_recorded_step_that_is_not_finite_changes_nothing(device: torch.device) -> None:
    state, inputs = new(BFLOAT16, device), stream()
    for step_input in inputs[:6]:
        apply_step(state, step_input)
    assert graphs(state) > 0
    kept = state.onerec.bos.detach().clone()
    with torch.no_grad():
        state.onerec.bos.fill_(torch.inf)
    before = copied(state.weights())
    refused = apply_step(state, inputs[6]).refused
    assert refused is not None
    assert refused.startswith(NON_FINITE)
    assert same(copied(state.weights()), before)
    with torch.no_grad():
        state.onerec.bos.copy_(kept)
    assert apply_step(state, inputs[7]).refused is None


def test_a_seed_is_recorded_with_the_same_bits(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(toy.TINY, bf16_seed=True)
    record, made, runs, recordings = RecordedGradients._record, list[object](), [], list[int]()

    def counted(self: RecordedGradients, *arguments: Any) -> None:
        made.append(arguments[0])
        record(self, *arguments)

    monkeypatch.setattr(RecordedGradients, "_record", counted)
    for first in (recorded.RECORDED_FROM, 1 << 30):
        monkeypatch.setattr(recorded, "RECORDED_FROM", first)
        state = new(config, device, seed=SeedSettings(batch=16, learning_rate=1e-2))
        steps: list[SeedStep] = []
        train_seed(state, samples(), toy.catalogue(), SampleCount(600), on_step=steps.append)
        losses = [step.losses["next_token"] for step in steps]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
        runs.append((copied(state.tensors()), losses))
        recordings.append(len(made))
    assert recordings[0] > 0
    assert recordings[1] == recordings[0], "the second run records nothing"
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_a_move_ends_graphs_and_they_are_made_again(device: torch.device) -> None:
    state, stayed, inputs = new(BFLOAT16, device), new(BFLOAT16, device), stream()
    for place, step_input in enumerate(inputs):
        assert apply_step(state, step_input) == apply_step(stayed, step_input)
        if place == 6:
            assert graphs(state) > 0
            state.move(torch.device("cpu"))
            state.move(device)
            assert graphs(state) == 0
    assert graphs(state) > 0
    assert same(state.tensors(), stayed.tensors())


def test_another_thread_may_work_while_a_step_is_recorded(device: torch.device) -> None:
    state, ended = new(BFLOAT16, device), threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not ended.is_set():
                other = copy.deepcopy(toy.state().onerec).to(device)  # new memory, copies from the host and kernels
                assert bool(other.bos.cpu().isfinite().all())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for step_input in stream():
            assert apply_step(state, step_input).refused is None
    finally:
        ended.set()
        thread.join()
    assert not failures
    assert graphs(state) == 3
