"""What other kernels change is measured against float32, case by case."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from evaluation.precision import REFERENCE, Decoded, apart, compared, table, write_page
from inference.engine.native import binding
from tests.evaluation.table1.small_world import CONFIG, FORM, small_world
from tests.inference.compiling import build_kernels


def test_every_way_to_decode_is_a_row_and_near_the_reference(tmp_path: Path) -> None:
    if binding.kinds():
        build_kernels()
    wide = dataclasses.replace(CONFIG, d_model=64)
    rows = compared(small_world(), FORM, wide, [1], tmp_path)
    assert [row["kernels"] for row in rows] == [REFERENCE, *binding.kinds()]
    reference, *others = rows
    assert (reference["same_of_ten"], reference["same_first"], reference["log_prob_apart"]) == (1.0, 1.0, 0.0)
    for row in others:
        assert row["same_of_ten"] > 0.8
        assert 0 < row["log_prob_apart"] < 0.3
    page = tmp_path / "page.md"
    write_page(page, {"rows": rows, "cases": 40, "seeds": [1], "machine": {"cpu": "a processor"}})
    assert table({"rows": rows}) in page.read_text()


def test_what_differs_is_counted() -> None:
    sessions = np.array([[[1, 2], [3, 4]], [[5, 6], [-1, -1]]])
    log_probs = np.array([[-1.0, -2.0], [-3.0, -np.inf]], np.float32)
    ranking = np.array([range(10), range(10)])
    reference = Decoded(sessions, log_probs, ranking)
    others = np.array([[[3, 4], [1, 7]], [[5, 6], [-1, -1]]])
    own = Decoded(others, np.array([[-2.5, -3.0], [-3.1, -np.inf]], np.float32), np.array([[*range(1, 11)], range(10)]))
    found = apart(own, reference)
    assert found == {"same_of_ten": 0.95, "same_first": 0.5, "log_prob_apart": pytest.approx((0.5 + 0.1) / 2)}
