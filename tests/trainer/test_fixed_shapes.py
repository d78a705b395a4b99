"""Losses in fixed shapes are the objectives' own: values, gradients and experts' loads, whatever is padded."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from onerec.model.moe import SparseMoE
from onerec.model.presets import ModelConfig
from onerec.settings import TrainerSettings, TrainOn
from schemas.labels import Label
from tests.trainer import toy
from trainer import fixed_shapes, objectives
from trainer.admission import admit
from trainer.batches import SessionBatch, session_batch
from trainer.environment import make_deterministic
from trainer.fixed_shapes import Targets, padded
from trainer.recorded import can_record
from trainer.state import TrainState
from trainer.step import records

SHAPES = {
    "experts": toy.TINY,
    "dense": dataclasses.replace(toy.TINY, experts=1, active_experts=1),
    "codes-as-tokens": dataclasses.replace(toy.TINY, history_tokens="codes"),
}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    make_deterministic(1)


def lesson(config: ModelConfig, count: int) -> SessionBatch:
    """Sessions of one to three items, every second of them without a positive, with histories of up to eight."""
    state = TrainState.new(config, TrainerSettings())
    sessions = [
        toy.session(
            k, range(k, k + 1 + k % 3), history=range(20, 20 + k % 9), labels=Label.LONG_VIEW if k % 2 else Label.NONE
        )
        for k in range(1, count + 1)
    ]
    rows = admit(state, toy.step_input(sessions)).rows
    return session_batch(rows, toy.catalogue(), config, TrainOn.POSITIVES)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def loads(model: nn.Module) -> list[list[int]]:
    return [module.load.tolist() for module in model.modules() if isinstance(module, SparseMoE)]


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("count", [1, 7, 8, 11])
def test_next_token_loss_gradients_and_loads_are_those_of_the_objective(config: ModelConfig, count: int) -> None:
    batch, trie = lesson(config, count), toy.catalogue().trie
    ours = TrainState.new(config, TrainerSettings()).onerec
    theirs = copy.deepcopy(ours)
    whole = padded(batch, config, 64)
    assert whole.leaves.shape == ((8, 8, 8, 16)[[1, 7, 8, 11].index(count)], config.session_items)
    found = fixed_shapes.next_token_loss(ours, whole, Targets.of(whole.leaves, trie, config))
    expected = objectives.next_token_loss(theirs, batch, trie)
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    one, other = gradients(ours), gradients(theirs)
    assert one.keys() == other.keys()
    for name, gradient in other.items():
        torch.testing.assert_close(one[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert loads(ours) == loads(theirs)


@pytest.mark.parametrize("count", [1, 7, 8])
def test_reward_loss_and_gradients_are_those_of_the_objective(count: int) -> None:
    batch = lesson(toy.TINY, count)
    ours = toy.state().reward
    theirs = copy.deepcopy(ours)
    found = fixed_shapes.reward_loss(ours, padded(batch, toy.TINY, 64))
    expected = objectives.session_reward_loss(theirs, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients(theirs).items():
        torch.testing.assert_close(gradients(ours)[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_batches_of_many_sizes_have_few_shapes() -> None:
    config = dataclasses.replace(toy.TINY, history_items=200)
    shapes = set()
    for count in range(1, 25):
        batch = padded(lesson(config, count), config, 24)
        shapes.add((tuple(batch.leaves.shape), tuple(batch.history.codes.shape)))
    assert shapes == {((rows, 3), (rows, 64, 3)) for rows in (8, 16, 24)}


def test_a_catalogue_that_grows_keeps_its_shapes() -> None:
    """A graph goes on with the next catalogue: children are counted up to a power of two, or all codes."""
    leaves = torch.tensor([[0, 4, -1]])
    shapes = []
    for items in (49, 55, 60):
        targets = Targets.of(leaves, toy.catalogue(range(items)).trie, toy.TINY)
        shapes.append([tuple(part.shape) for part in (*targets.children, *targets.legal, targets.rank)])
    assert shapes[0] == shapes[1] == shapes[2]


def test_on_a_cpu_nothing_is_recorded() -> None:
    state = toy.state(cuda_graphs=True)
    assert not can_record(state.onerec)
    assert not records(state)
