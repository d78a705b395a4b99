"""Every kernel of a training step repeats its bits: in one process, and in another one with as many threads."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from onerec.errors import DependencyMissingError
from onerec.kernels import binding
from tests.trainer.world import ROOT

DEADLINE_S = 150


@pytest.mark.slow
def test_every_piece_of_a_step_repeats_its_bits() -> None:
    """Passive threads wait for their part without burning the core that another one needs."""
    with contextlib.suppress(DependencyMissingError):  # torch computes twice then
        binding.build()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "tests.trainer.kernels"]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        first, *others = [
            found for process in processes for found in json.loads(process.communicate(timeout=DEADLINE_S)[0])
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(first) >= 26, "thirteen pieces, with one and with two threads"
    for other in others:
        assert other.keys() == first.keys()
        assert [name for name in first if other[name] != first[name]] == []
