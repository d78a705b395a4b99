"""Errors that cross from one process into another."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from onerec.errors import CheckFailedError, OneRecError
from trainer.checkpoint import TornCheckpointError
from trainer.ranks import RankLostError


def end_with(kind: str) -> None:
    """In another process."""
    if kind == "rank":
        raise RankLostError(3, "it was killed")
    if kind == "checkpoint":
        raise TornCheckpointError(Path("/somewhere/checkpoint"), "a file is short")
    raise CheckFailedError("Two sums differ.", "Read the log.")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("rank", RankLostError), ("checkpoint", TornCheckpointError), ("check", CheckFailedError)],
)
def test_a_process_that_fails_says_so_in_the_one_that_started_it(kind: str, error: type[OneRecError]) -> None:
    with pytest.raises(error) as expected:
        end_with(kind)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(error) as came:
        pool.submit(end_with, kind).result(150)
    assert type(came.value) is error
    assert str(came.value) == str(expected.value)
    assert (came.value.problem, came.value.remedy) == (expected.value.problem, expected.value.remedy)
    assert came.value.exit_code is error.exit_code
