"""The trainer on a GPU: the CPU's gradients, bits that repeat, checkpoints that lead on from either device."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.settings import SeedSettings, TrainerSettings
from onerec.weights.tensors import digest
from tests.model.test_moe import dense_loop
from tests.trainer import toy
from tests.trainer.test_checkpoint import SURROUNDINGS
from tests.trainer.test_seed import samples
from tests.trainer.test_step import copied, same, stream
from trainer.admission import admit
from trainer.batches import SessionBatch, session_batch
from trainer.budget import SampleCount
from trainer.checkpoint import Checkpoints
from trainer.environment import make_deterministic
from trainer.objectives import next_token_loss, session_reward_loss
from trainer.placement import moved
from trainer.publish import cast
from trainer.seed import SeedStep, train_seed
from trainer.state import TrainState
from trainer.step import apply_step

FLOAT32, BFLOAT16 = 1e-4, 3e-2
"""Largest distance of two gradients, of the norm of one, that is rounding."""
SHAPES = {
    "experts": toy.TINY,
    "dense": dataclasses.replace(toy.TINY, experts=1, active_experts=1),
    "codes-as-tokens": dataclasses.replace(toy.TINY, history_tokens="codes"),
    "bfloat16": dataclasses.replace(toy.TINY, bf16=True),
}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def batch(config: ModelConfig) -> SessionBatch:
    """Sessions of one to three items with histories of up to eight."""
    state = TrainState.new(config, TrainerSettings())
    sessions = [toy.session(k, range(k, k + 1 + k % 3), history=range(20, 20 + k)) for k in range(1, 9)]
    rows = admit(state, toy.step_input(sessions)).rows
    return session_batch(rows, toy.catalogue(), config, state.settings.train_on)


def gradients(model: OneRec, lesson: SessionBatch, device: torch.device) -> tuple[float, dict[str, torch.Tensor]]:
    placed = copy.deepcopy(model).to(device)
    loss = next_token_loss(placed, moved(lesson, device), toy.catalogue().trie.to(device))
    assert loss is not None
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), {
        name: parameter.grad.cpu() for name, parameter in placed.named_parameters() if parameter.grad is not None
    }


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    gap = sum(float((found[name] - expected[name]).square().sum()) for name in found)
    return float((gap / sum(float(grad.square().sum()) for grad in expected.values())) ** 0.5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_gradients_are_those_of_the_cpu(device: torch.device, config: ModelConfig) -> None:
    """In bfloat16 too: the CPU without its instructions computes in float32, so this bounds the rounding."""
    torch.manual_seed(0)
    model = OneRec(config)
    lesson = batch(config)
    loss, found = gradients(model, lesson, device)
    expected_loss, expected = gradients(model, lesson, torch.device("cpu"))
    assert loss == pytest.approx(expected_loss, rel=1e-2 if config.bf16 else 1e-5)
    assert distance(found, expected) < (BFLOAT16 if config.bf16 else FLOAT32)


def test_reward_scores_and_gradients_are_those_of_the_cpu(device: torch.device) -> None:
    state, lesson = toy.state(), batch(toy.TINY)
    there = copy.deepcopy(state.reward).to(device)
    losses = [session_reward_loss(state.reward, lesson), session_reward_loss(there, moved(lesson, device))]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=1e-5)
    grads = [
        {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        for model in (there, state.reward)
    ]
    assert distance(*grads) < FLOAT32


def test_steps_lead_where_the_cpu_leads(device: torch.device) -> None:
    here, there = toy.state(learning_rate=1e-3), toy.state(learning_rate=1e-3)
    there.move(device)
    for step_input in stream(7):
        expected, found = apply_step(here, step_input), apply_step(there, step_input)
        assert found.losses == pytest.approx(expected.losses, rel=2e-3, abs=2e-3)
        assert (found.sessions, found.pairs, found.refused) == (expected.sessions, expected.pairs, None)
    assert here.device.type == "cpu"
    assert there.device == device


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_same_steps_give_the_same_bits(device: torch.device, config: ModelConfig) -> None:
    runs = []
    for _ in range(2):
        state = TrainState.new(dataclasses.replace(config, dropout=0.2), toy.state().settings)
        state.move(device)
        losses = [apply_step(state, step_input).losses for step_input in stream(7)]
        runs.append((copied(state.tensors()), losses))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_a_checkpoint_goes_on_with_the_same_bits(device: torch.device, tmp_path: Path) -> None:
    """Written from the GPU, read on the CPU, moved to the GPU again: one and the same state."""
    state = toy.state()
    state.move(device)
    for step_input in stream(4):
        apply_step(state, step_input)
    Checkpoints(tmp_path, keep=1).save(state, SURROUNDINGS)
    found = Checkpoints(tmp_path, keep=1).load(toy.TINY, state.settings)
    assert found is not None
    loaded = found[0]
    assert loaded.device.type == "cpu"
    assert same(loaded.tensors(), state.tensors())
    assert digest(cast(loaded.weights(), "bfloat16")) == digest(cast(state.weights(), "bfloat16"))
    loaded.move(device)
    assert same(loaded.tensors(), state.tensors())
    for step_input in stream(8)[4:]:
        assert apply_step(loaded, step_input) == apply_step(state, step_input)
    assert same(loaded.tensors(), state.tensors())
    assert all(tensor.device.type == "cpu" for tensor in state.tensors().values())


def test_a_seed_learns_and_repeats_its_bits(device: torch.device) -> None:
    runs = []
    for _ in range(2):
        state = toy.state(seed=SeedSettings(batch=16, threads=2, learning_rate=1e-2))
        state.move(device)
        steps: list[SeedStep] = []
        train_seed(state, samples(), toy.catalogue(), SampleCount(800), on_step=steps.append)
        losses = [step.losses["next_token"] for step in steps]
        assert state.device == device
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
        runs.append(copied(state.tensors()))
    assert same(*runs)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("rows", [1, 37])
def test_experts_are_the_plain_loop(device: torch.device, dtype: torch.dtype, bound: float, rows: int) -> None:
    """Forward and gradients; with one row most experts have none, and gradients of zero."""
    torch.manual_seed(0)
    moe = SparseMoE(32, 16, experts=5, active=2)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, direction = torch.randn(rows, 32), torch.randn(rows, 32)
    # Rows and weights that bfloat16 holds: what is compared is the arithmetic.
    moe, x = moe.to(dtype).float(), x.to(dtype).float()
    there = copy.deepcopy(moe).to(device)
    expected = dense_loop(moe, x)
    found = there(x.to(device, dtype))
    largest = bound * float(expected.detach().abs().max())
    torch.testing.assert_close(found.cpu().float(), expected, rtol=0, atol=largest)
    with torch.no_grad():
        torch.testing.assert_close(there(x.to(device, dtype)).cpu().float(), expected, rtol=0, atol=largest)
    assert int(there.load.sum()) == 2 * rows
    grads = torch.autograd.grad(found, [there.w_in, there.w_out, there.centroids], direction.to(device))
    reference = torch.autograd.grad(expected, [moe.w_in, moe.w_out, moe.centroids], direction)
    for grad, exact in zip(grads, reference, strict=True):
        assert float((grad.cpu() - exact).norm()) <= bound * float(exact.norm()) + 1e-6
    idle = there.load.cpu() == 0
    assert not grads[0].cpu()[idle].any()
