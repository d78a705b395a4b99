"""A trainer takes its steps as torch's AdamW would, and never loads torch's compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch.optim import AdamW

from tests.trainer import toy
from tests.trainer.test_step import copied, same, stream
from tests.trainer.world import ROOT
from trainer.environment import make_deterministic
from trainer.state import TrainState
from trainer.step import apply_step

LIFE = """
import sys, tempfile
from pathlib import Path
import trainer.service
from tests.trainer import toy
from tests.trainer.test_checkpoint import SURROUNDINGS
from tests.trainer.test_seed import seeded
from tests.trainer.test_step import stream
from trainer.budget import SampleCount
from trainer.checkpoint import Checkpoints
from trainer.environment import make_deterministic
from trainer.step import apply_step

make_deterministic(1)
state, _ = seeded(SampleCount(32))
for step_input in stream(4):
    apply_step(state, step_input)
with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(Path(folder), keep=1)
    checkpoints.save(state, SURROUNDINGS)
    assert checkpoints.load(toy.TINY, state.settings) is not None
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & sys.modules.keys()))
"""


def test_from_the_seed_to_a_checkpoint_nothing_is_loaded_that_only_a_compiler_needs() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIFE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_steps_are_those_of_torch() -> None:
    make_deterministic(1)
    ours, theirs = toy.state(), toy.state()
    of_torch(theirs)
    for step_input in stream(6):
        apply_step(ours, step_input)
        apply_step(theirs, step_input)
    assert same(copied(ours.tensors()), copied(theirs.tensors()))
    assert torch.are_deterministic_algorithms_enabled()


def of_torch(state: TrainState) -> None:
    """Give it torch's own optimizers, with the same settings."""
    for name in ("onerec_optimizer", "reward_optimizer"):
        (group,) = getattr(state, name).param_groups
        chosen = {key: group[key] for key in ("params", "lr", "betas", "weight_decay", "fused")}
        setattr(state, name, AdamW([chosen]))
