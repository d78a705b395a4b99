"""Trials in this process and side by side in others give the same."""

from __future__ import annotations

import os
from typing import Any

import pytest

from evaluation import trying
from evaluation.baselines.training import CPU


def squared(trial: int, bench: int) -> dict[str, Any]:
    return {"figure": trial**2 + bench, "process": os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_each_trial_comes_with_its_figures(processes: int) -> None:
    found = dict(trying.each(squared, [3, 1, 2], 10, CPU, processes))
    assert {trial: own["figure"] for trial, own in found.items()} == {3: 19, 1: 11, 2: 14}
    here = {own["process"] for own in found.values()} == {os.getpid()}
    assert here == (processes == 1)
