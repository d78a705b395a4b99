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
    """A target raises where a decoder does what it must not."""
    module = importlib.import_module(f"tests.fuzz.{name}")
    random = Random(0)
    seeds = module.SEEDS[: SLOW.get(name, 40)]
    others = [mutated(seed, random) for seed in seeds for _ in range(2)]
    for data in (*seeds, *others):
        module.target(data)
    assert len({*seeds, *others}) > len(set(seeds)) > 0, "there were seeds, and mutations of them"


def test_there_is_a_target_for_each_decoder() -> None:
    records = {"records", "registered", "packed", "columns", "joins", "joiner", "changelog", "letters"}
    files = {"weights", "deltas", "manifests", "checkpoints", "codebooks", "mappings", "tables", "configuration"}
    assert set(TARGETS) == records | files | {"scrapes"}
