"""Models that several rows and figures share: each is trained once and kept in the folder of its form."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from evaluation.baselines.training import CPU
from evaluation.table1 import fixed_shapes
from evaluation.table1.generative import train_generative
from evaluation.table1.judge import train_reward
from evaluation.table1.protocol import Form
from evaluation.table1.world import World
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.model.reward import RewardModel

JUDGE_SEED = 7_001
JUDGE_WEIGHTS = "judge.safetensors"
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Context:
    """What a family of rows is trained with; `folder` keeps weights that other rows start from."""

    world: World
    form: Form
    config: ModelConfig
    seed: int
    folder: Path
    device: torch.device = CPU


def judge_of(place: Path, world: World, form: Form, config: ModelConfig, device: torch.device = CPU) -> RewardModel:
    """The judge: all rows of a form are judged by the same."""
    samples, epochs = form.judge_samples, form.judge_epochs
    return kept(
        place / JUDGE_WEIGHTS,
        lambda: RewardModel(config).to(device),
        lambda: train_reward(world.judge, config, epochs, samples, JUDGE_SEED, device=device),
    )


def reward_of(at: Context) -> RewardModel:
    """The reward model of this seed that makes the rows' preference pairs."""
    form = at.form
    return kept(
        at.folder / reward_weights(at.seed),
        lambda: RewardModel(at.config).to(at.device),
        lambda: train_reward(
            at.world.rows, at.config, form.judge_epochs, form.reward_samples, at.seed, device=at.device
        ),
    )


def onerec_of(at: Context) -> OneRec:
    """The larger OneRec of this seed."""
    return kept(
        at.folder / onerec_weights(at.seed),
        lambda: fixed_shapes.place(OneRec(at.config), at.device),
        lambda: train_generative(at.world.rows, at.config, at.form.onerec, at.seed, at.device),
    )


def reward_weights(seed: int) -> str:
    """The file of a seed's reward model."""
    return f"reward.{seed}.safetensors"


def onerec_weights(seed: int) -> str:
    """The file of a seed's larger OneRec."""
    return f"onerec-l.{seed}.safetensors"


def kept(path: Path, empty: Callable[[], Model], train: Callable[[], Model]) -> Model:
    """From the file where it is there, else trained and written there; by one process, for which others wait."""
    with alone(path.with_suffix(".lock")):
        if path.is_file():
            model = empty()
            model.load_state_dict(load_file(path))
            return model.eval()
        model = train()
        unfinished = path.with_suffix(".part")
        save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, unfinished)
        unfinished.replace(path)
        return model


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While no other process is here; the system lets go of the lock when a process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
