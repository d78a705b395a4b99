"""Steps of several models on the ranks that torchrun started; rank 0 writes what came out into a folder.

torchrun --standalone --nproc-per-node 2 -m tests.trainer.rank_steps FOLDER
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from onerec.model.presets import ModelConfig
from onerec.settings import TrainerSettings, load_settings
from tests.trainer import toy
from tests.trainer.test_seed import samples
from tests.trainer.test_step import stream
from trainer import kernels
from trainer.admission import StepInput
from trainer.budget import SampleCount
from trainer.environment import make_deterministic
from trainer.ranks import Ranks, joined
from trainer.seed import train_seed
from trainer.spread import follow, spread
from trainer.state import TrainState
from trainer.step import StepResult, apply_step

STEPS = 6
DENSE = dataclasses.replace(toy.TINY, experts=1, active_experts=1, expert_hidden=64)
BRANCHING = dataclasses.replace(toy.TINY, heads=1, bf16=True)
"""Of which kernels compute whole branches, where the processor multiplies bfloat16."""
DROPPING = dataclasses.replace(toy.TINY, dropout=0.2)
MODELS = {"moe": toy.TINY, "dense": DENSE, "dropout": DROPPING, "branching": BRANCHING}
SETTINGS: dict[str, Any] = {
    "warmup_steps": 2,
    "learning_rate": 1e-3,
    "expert_bias_rate": 0.01,
    "frequency_power": 0.5,
    "seed": {"batch": 13, "threads": 1},
}
OTHER_PARTS = (1, 3)
"""Parts of a trainer that had fewer ranks, and of one that had more."""
SHARDINGS = ("ddp", "fsdp")


def fresh(config: ModelConfig) -> TrainState:
    """A state of the model, before its first step."""
    return TrainState.new(config, TrainerSettings(**SETTINGS))


def lessons() -> list[StepInput]:
    """Sessions alone; then a step of each kind that leaves ranks without work of some sort."""
    inputs = stream(STEPS)  # pairs in every third
    inputs[1] = toy.step_input([toy.session(900, [5, 6, 7])], first_offset=900)
    inputs[2] = toy.step_input([], [toy.pair(901, [1, 2, 3], [4, 5, 6], (-12.0, -11.0))], first_offset=901)
    unliked = [toy.session(910 + n, [n, n + 1], labels=0) for n in range(3)]
    inputs[4] = toy.step_input([*unliked, toy.session(919, [8, 9, 10])], first_offset=910)
    inputs[5] = toy.step_input(unliked[:1], first_offset=920)
    return inputs


def run(state: TrainState) -> Iterator[tuple[int, StepResult]]:
    """All lessons, one after the other."""
    for number, step_input in enumerate(lessons(), start=1):
        yield number, apply_step(state, step_input)


def seed(state: TrainState) -> dict[str, Tensor]:
    """Its weights after a seed of a few steps, the last of an epoch with few samples."""
    train_seed(state, samples(), toy.catalogue(), SampleCount(100), on_step=lambda _: None)
    return state.weights()


def steps(config: ModelConfig, ranks: Ranks, path: Path, *, parts: int | None = None) -> None:
    """The lessons on all ranks; writes the state after the first and the last step."""
    state = fresh(config)
    spread(state, ranks, state.settings)
    state.parts = parts or state.parts
    for number, _ in run(state):
        if number in (1, STEPS):
            tensors = {key: tensor.contiguous() for key, tensor in state.tensors().items()}
            save_file(tensors, f"{path}-{number}.safetensors")


def main(folder: Path) -> None:
    """Every model in both shardings."""
    make_deterministic(1)
    with joined(load_settings(model={"preset": "tiny"})) as ranks:
        assert ranks is not None
        if ranks.rank:
            return follow(ranks)
        for name, config in MODELS.items():
            if name == "branching":
                continue
            for sharding in SHARDINGS if name != "dropout" else ("ddp",):
                steps(config, dataclasses.replace(ranks, sharding=sharding), folder / f"{sharding}-{name}")
        for parts in OTHER_PARTS:
            steps(toy.TINY, ranks, folder / f"parts-{parts}", parts=parts)
        for sharding in SHARDINGS:
            state = fresh(toy.TINY)
            spread(state, dataclasses.replace(ranks, sharding=sharding), state.settings)
            save_file(seed(state), folder / f"{sharding}-seed.safetensors")
        kernels.choose(TrainerSettings(), ranks.device)  # the others learn of it
        steps(toy.TINY, ranks, folder / "compiled")
        for sharding in SHARDINGS:
            kernels.choose(TrainerSettings(), ranks.device, sharded=sharding == "fsdp")
            steps(BRANCHING, dataclasses.replace(ranks, sharding=sharding), folder / f"branching-{sharding}")
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
