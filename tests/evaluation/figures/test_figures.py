"""Points of the figures: orderings that must hold on a log with a rule, with margin; and the page made of them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.figures import page, plot
from evaluation.figures.confidence import entropy
from evaluation.figures.forms import QUICK
from evaluation.figures.ratio import rewards
from evaluation.figures.run import run
from evaluation.figures.scale import law
from evaluation.table1.protocol import GenerativeTraining
from onerec.errors import SettingsError
from tests.evaluation.table1.small_world import CONFIG, FORM, small_world

TABLE = dataclasses.replace(
    FORM,
    onerec=GenerativeTraining(samples=3_000),
    judge_samples=256,
    reward_samples=3_000,
    preference_steps=40,
)
SMALL = dataclasses.replace(
    QUICK,
    table=dataclasses.replace(TABLE, preference_users=40),
    ratios=(0.0, 0.25),
    widths=(4, 8, 16, 32),
    scale_samples=3_000,
    held_out=300,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return made(folder)


def made(folder: Path, load_world: Any = lambda *_: small_world()) -> dict[str, Any]:
    return run(SMALL, folder / "figures", folder / "tables", config=CONFIG, load_world=load_world)


def test_a_wider_model_predicts_unseen_users_better(found: dict[str, Any]) -> None:
    points = found["scale"]
    assert [point["width"] for point in points] == [4, 8, 16, 32]
    assert points[0]["parameters"] < points[-1]["parameters"]
    assert points[-1]["loss"] < points[0]["loss"] - 0.1
    assert points[-1]["accuracy_by_level"][0] >= points[0]["accuracy_by_level"][0]


def test_pairs_raise_the_reward_that_made_them(found: dict[str, Any]) -> None:
    none, some = rewards(found["ratio"], "training")
    assert none == 0.0
    assert some > 0.1


def test_confidence_is_of_legal_codes(found: dict[str, Any]) -> None:
    for levels in found["confidence"]["levels"].values():
        for level in levels:
            assert 0 < level["entropy"] < math.log(level["choices"])
            assert 1 < level["choices"] <= CONFIG.codes
            assert 0 < level["marked_probability"] < 1
    for level in found["confidence"]["example"]["levels"]:
        assert 0 <= level["marked"] < len(level["probabilities"]["ipa"])
        assert sum(level["probabilities"]["before"]) <= 1.0 + 1e-5


def test_points_that_are_there_are_not_made_again(folder: Path, found: dict[str, Any]) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("the log is read again")

    assert json.dumps(made(folder, refuse)) == json.dumps(found)
    with pytest.raises(SettingsError, match="no figure 7"):
        run(SMALL, folder, only=["7"])


def test_pictures_and_page(found: dict[str, Any], tmp_path: Path) -> None:
    pictures = plot.draw(found, tmp_path, "-quick")
    assert [path.name for path in pictures] == ["figure4-quick.png", "figure5-quick.png", "figure6-quick.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    paper = tmp_path / "paper.md"
    paper.write_text("# Before\n")
    page.write_paper(paper, found, pictures)
    first = paper.read_text()
    page.write_paper(paper, found, pictures)
    assert paper.read_text() == first
    for part in (
        "# Before\n",
        "| 25 % | +",
        "| after IPA | 3 | ",
        "| 32 | ",
        "(../evaluation/results/figure6-quick.png)",
    ):
        assert part in first


def test_law_finds_what_made_the_losses() -> None:
    sizes = [1e4, 3e4, 1e5, 1e6, 1e7]
    fitted = law(sizes, [1.5 + 40.0 / n**0.45 for n in sizes])
    assert fitted is not None
    assert fitted["E"] == pytest.approx(1.5, abs=0.02)
    assert fitted["alpha"] == pytest.approx(0.45, abs=0.01)
    assert law(sizes[:3], [3.0, 2.0, 1.0]) is None


def test_entropy_by_hand() -> None:
    sure, even = [0.0, -math.inf, -math.inf], [math.log(0.5), math.log(0.5), -math.inf]
    assert entropy(torch.tensor([sure, even])).tolist() == pytest.approx([0.0, math.log(2)])
