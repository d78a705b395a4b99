"""What a GPU computes in fixed shapes is what the trainer computes: loss, gradients, load, and the steps of a seed."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.table1 import fixed_shapes
from evaluation.table1.fixed_shapes import EveryExpert, SampleTable
from evaluation.table1.generative import lessons, tiger, train_generative
from evaluation.table1.protocol import GenerativeTraining
from evaluation.table1.world import World
from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, lazy
from onerec.settings import TrainerSettings
from tests.evaluation.table1.small_world import CONFIG, small_world
from trainer.budget import SampleCount
from trainer.objectives import next_token_loss
from trainer.samples import Samples, cut, sample_batch
from trainer.state import TrainState


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def samples_of(world: World, config: ModelConfig) -> Samples:
    return cut([world.rows.history(row) for row in range(len(world.rows.past))], world.rows.catalogue, config)


def with_every_expert(model: OneRec) -> OneRec:
    """On CPU, where `place` leaves a model as it is."""
    for block in model.decoder.stack():
        block.moe = EveryExpert.of(block.moe)
    return model


def loads(model: OneRec) -> list[list[int]]:
    return [module.load.tolist() for module in model.modules() if isinstance(module, SparseMoE)]


@pytest.mark.parametrize("config", [CONFIG, tiger(CONFIG), lazy(CONFIG)], ids=lambda config: config.name)
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_loss_gradients_and_load_are_the_trainers(world: World, config: ModelConfig, floor: float) -> None:
    torch.manual_seed(0)
    samples, catalogue = samples_of(world, config), world.rows.catalogue
    rows = np.random.default_rng(0).permutation(np.flatnonzero(samples.positives > 0))[:20]
    usual = OneRec(config).train()
    fixed = with_every_expert(copy.deepcopy(usual))
    batch = sample_batch(samples, rows, catalogue, config)
    expected = next_token_loss(usual, dataclasses.replace(batch, weight=batch.weight.clamp(min=floor)), catalogue.trie)
    assert expected is not None
    table = SampleTable.of(samples, torch.device("cpu"))
    filled_up = torch.from_numpy(np.append(rows, [-1, -1]))
    found = fixed_shapes.next_token_loss(fixed, table, catalogue.trie, filled_up, torch.tensor(floor))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    (expected + found).backward()  # type: ignore[no-untyped-call]
    own = dict(fixed.named_parameters())
    assert own.keys() == dict(usual.named_parameters()).keys()
    for name, parameter in usual.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)
    if floor:  # else the trainer leaves out what no positive depends on
        assert loads(fixed) == loads(usual)


def test_dropout_is_the_seeds(world: World) -> None:
    training = GenerativeTraining(samples=256, dropout=0.5)
    settings = TrainerSettings(random_seed=3, seed=lessons(CONFIG, training))
    model = with_every_expert(TrainState.new(CONFIG, settings).onerec)
    seen = set[float]()
    usual = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda own, *_: seen.add(own.p))
    fixed_shapes.train(model, samples_of(world, CONFIG), world.rows.catalogue, SampleCount(256), settings)
    assert seen == {0.5}
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == usual


def test_a_seed_takes_the_trainers_steps(world: World) -> None:
    count, side = 1024, world.rows
    training = GenerativeTraining(samples=count)
    expected = train_generative(side, CONFIG, training, seed=3)
    settings = TrainerSettings(random_seed=3, seed=lessons(CONFIG, training))
    model = with_every_expert(TrainState.new(CONFIG, settings).onerec)
    fixed_shapes.train(model, samples_of(world, CONFIG), side.catalogue, SampleCount(count), settings)
    for name, parameter in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], parameter, rtol=1e-2, atol=2e-3, msg=name)
