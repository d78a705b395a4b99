"""Each target takes its seeds and mutations of them; the fuzzer itself runs by `make fuzz`."""

from __future__ import annotations

import importlib
from random import Random

import pytest

from tests.fuzz.__main__ import TARGETS
from tests.hostile.files import mutated

SLOW = {"joiner": 3}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_mutations_of_them(name: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{name}")
    random = Random(0)
    for seed in module.SEEDS[: SLOW.get(name, 40)]:
        module.target(seed)
        for _ in range(2):
            module.target(mutated(seed, random))


def test_there_is_a_target_for_each_decoder() -> None:
    records = {"records", "registered", "packed", "columns", "joins", "joiner", "changelog", "letters"}
    files = {"weights", "deltas", "manifests", "checkpoints", "codebooks", "mappings", "tables", "configuration"}
    assert set(TARGETS) == records | files | {"scrapes"}
