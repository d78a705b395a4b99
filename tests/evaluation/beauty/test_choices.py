"""How TIGER's training is chosen: on made-up data, by trainings of seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.baselines.training import CPU
from evaluation.beauty import choices_page
from evaluation.beauty.choices import TRIALS, choose
from evaluation.beauty.dataset import load
from evaluation.beauty.protocol import FULL
from evaluation.beauty.training import Recipe
from tests.evaluation.beauty.planted import planted
from tests.evaluation.beauty.test_run import FORM

SHORT = replace(
    FORM.tiger, width=32, layers=1, dropout=0.0, recipe=Recipe(epochs=12, batch=128, looks=1, learning_rate=1e-2)
)
TRIED = (
    replace(SHORT, recipe=replace(SHORT.recipe, learning_rate=1e-6)),
    SHORT,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("choices")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    form = replace(FORM, tiger=SHORT)
    return choose(load(planted(folder / "data", users=600)), form, TRIED, folder / "runs", device=CPU, processes=2)


def test_a_training_that_learns_is_above_one_that_does_not(found: dict[str, Any]) -> None:
    recall = [own["validation"]["unseen"]["recall_at_10"] for own in found["trials"]]
    assert recall[1] > 2 * recall[0], recall


def test_the_test_item_is_not_looked_at(found: dict[str, Any], folder: Path) -> None:
    """With other items at the ends of all sequences everything is as it was."""
    data = load(folder / "data")
    ends = data.starts[1:] - 1
    items = data.items.copy()
    items[ends] = np.random.default_rng(1).permutation(items[ends])
    learns = TRIED[1:2]
    again = choose(replace(data, items=items), replace(FORM, tiger=SHORT), learns, folder / "others", device=CPU)
    assert again["trials"][0]["validation"] == found["trials"][1]["validation"]


def test_what_is_there_is_not_made_again(found: dict[str, Any], folder: Path) -> None:
    form = replace(FORM, tiger=SHORT)
    again = choose(load(folder / "data"), form, TRIED, folder / "runs", device=CPU)
    assert again == found, "seconds and all"


def test_the_page_marks_what_is_taken(found: dict[str, Any], tmp_path: Path) -> None:
    paper = tmp_path / "paper.md"
    paper.write_text("before\n")
    choices_page.write_paper(paper, found)
    choices_page.write_paper(paper, found)
    rows = [line for line in paper.read_text().splitlines() if line.startswith(("| tiger", "| **tiger"))]
    assert len(rows) == len(TRIED)
    assert sorted("**" in row for row in rows) == [False, True]
    assert "1e-06" in rows[-1], "the best first"
    assert paper.read_text().count(choices_page.BEGIN) == 1


def test_what_the_full_form_takes_was_tried() -> None:
    assert FULL.tiger in TRIALS
