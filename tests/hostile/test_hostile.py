"""The short form of `make hostile`: nothing crashes, memory is bounded, each refusal has its reason."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.hostile import files, joiner, reading, records
from tests.hostile.reading import Outcome

MOST_MB = 300.0
"""Of growth while a consumer's largest batch of the largest records is read."""


@pytest.fixture(scope="module")
def child() -> Iterator[ProcessPoolExecutor]:
    """A process for all of them, so that a crash below Python is a failure of the test."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        yield pool


def check(outcome: Outcome) -> None:
    assert outcome.crashes == []
    assert outcome.is_complete(), outcome
    assert outcome.peak_mb < MOST_MB


def test_records_of_every_kind_are_refused_with_a_reason(child: ProcessPoolExecutor) -> None:
    for kind in records.KINDS:
        outcome = child.submit(reading.read, kind, 5 if kind in records.SHARES else 500).result()
        check(outcome)
        assert outcome.refused.total() > 0, f"{kind} is harmless"


def test_files_of_every_kind_are_refused_with_a_sentence(child: ProcessPoolExecutor) -> None:
    for kind in files.KINDS:
        outcome = child.submit(files.read, kind, 100).result()
        check(outcome)
        assert outcome.refused.total() > outcome.accepted, f"{kind} is harmless"


def test_a_joiner_takes_all_of_them(child: ProcessPoolExecutor) -> None:
    outcome = child.submit(joiner.on_bus, joiner.ON_BUS, 1000).result()
    check(outcome)
    assert {"undecodable", "unknown_schema", "out_of_bounds", "future"} <= outcome.refused.keys()
