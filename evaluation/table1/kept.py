"""Models that several rows and figures share: each is trained once and kept in the folder of its form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_file
from torch import nn

from evaluation.table1.generative import train_generative
from evaluation.table1.judge import train_reward
from evaluation.table1.protocol import Form
from evaluation.table1.world import World
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel

JUDGE_SEED = 7_001
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Context:
    """What a family of rows is trained with; `folder` keeps weights that other rows start from."""

    world: World
    form: Form
    config: ModelConfig
    seed: int
    folder: Path


def judge_of(place: Path, world: World, form: Form, config: ModelConfig) -> RewardModel:
    """The judge: all rows of a form are judged by the same."""
    samples, epochs = form.judge_samples, form.judge_epochs
    path = place / "judge.safetensors"
    return _kept(path, RewardModel(config), lambda: train_reward(world.judge, config, epochs, samples, JUDGE_SEED))


def reward_of(at: Context) -> RewardModel:
    """The reward model of this seed that makes the rows' preference pairs."""
    path, form = at.folder / f"reward.{at.seed}.safetensors", at.form
    return _kept(
        path,
        RewardModel(at.config),
        lambda: train_reward(at.world.rows, at.config, form.judge_epochs, form.reward_samples, at.seed),
    )


def onerec_of(at: Context) -> OneRec:
    """The larger OneRec of this seed."""
    path = at.folder / f"onerec-l.{at.seed}.safetensors"
    return _kept(path, OneRec(at.config), lambda: train_generative(at.world.rows, at.config, at.form.samples, at.seed))


def _kept(path: Path, empty: Model, train: Callable[[], Model]) -> Model:
    """From the file where it is there, else trained and written there."""
    if path.is_file():
        empty.load_state_dict(load_file(path))
        empty.eval()
        return empty
    model = train()
    unfinished = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished)
    unfinished.replace(path)
    return model
