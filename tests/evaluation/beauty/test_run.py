"""The table on made-up data whose structure is known: orderings that must hold with margin, no figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.beauty import protocol, published, report
from evaluation.beauty.accuracy import COLUMNS
from evaluation.beauty.dataset import load
from evaluation.beauty.run import run
from evaluation.beauty.training import Recipe
from onerec.errors import CheckFailedError
from tests.evaluation.beauty.planted import planted

FORM = replace(
    protocol.QUICK,
    users=None,
    validation_users=150,
    codes=16,
    beam=30,
    beam_of_views=20,
    width=32,
    layers=1,
    dropout=0.1,
    generative=Recipe(epochs=6, batch=128, looks=1, learning_rate=5e-3),
)
ROWS = ["popularity", "cooccurrence", "onerec", "onerec+taught", "onerec+views", "onerec+rescored", "onerec+counts"]
"""All but some that are trained in the same way."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("beauty")
    return run(load(planted(folder / "data", users=600)), FORM, [1], folder / "runs", only=ROWS)


@pytest.fixture(scope="module")
def summary(place: Path) -> dict[str, Any]:
    return report.summarise(place, FORM)


def test_what_is_generated_is_far_above_popularity(summary: dict[str, Any]) -> None:
    recall = {name: row["recall_at_10"][0] for name, row in summary["rows"].items()}
    for name in ("onerec", "onerec+taught", "onerec+views", "onerec+counts"):
        assert recall[name] > 2.5 * recall["popularity"], recall


def test_additions_do_not_cost_what_they_are_added_to(summary: dict[str, Any]) -> None:
    recall = {name: row["recall_at_10"][0] for name, row in summary["rows"].items()}
    assert recall["onerec+views"] > 0.85 * recall["onerec+taught"]
    assert recall["onerec+counts"] > 0.85 * recall["onerec+views"]


def test_every_row_says_what_it_is(summary: dict[str, Any]) -> None:
    assert list(summary["rows"]) == ROWS
    assert summary["commits"]
    assert "cpu" in summary["machine"]
    for name, row in summary["rows"].items():
        assert all(len(row[column]) == 2 for column in COLUMNS)
        assert row["recall_at_5"][0] <= row["recall_at_10"][0]
        assert row["with_seen_items"]["recall_at_10"][0] <= row["recall_at_10"][0] + 1e-9
        assert (row["parameters"] > 0) == (name not in {"popularity", "cooccurrence"})


def test_a_second_run_computes_nothing(place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    run(load(place.parent.parent / "data"), FORM, [1], place.parent, only=ROWS)
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before


def test_a_row_that_is_missing_comes_from_kept_models(place: Path) -> None:
    row = place / "onerec+counts.1.json"
    before = json.loads(row.read_text())
    weights = {path: path.stat().st_mtime_ns for path in place.glob("*.safetensors")}
    row.unlink()
    run(load(place.parent.parent / "data"), FORM, [1], place.parent, only=["onerec+counts"])
    again = json.loads(row.read_text())
    assert [again[column] for column in COLUMNS] == [before[column] for column in COLUMNS]
    assert {path: path.stat().st_mtime_ns for path in place.glob("*.safetensors")} == weights


def test_a_run_goes_on_from_published_rows(place: Path, tmp_path: Path) -> None:
    published.publish(place, tmp_path / "published")
    assert {path.name for path in (tmp_path / "published").iterdir()} == {f"{row}.1.json" for row in ROWS}
    kept = tmp_path / "published" / "onerec.1.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"seed": 2, "commit": "of old"}))
    kept.rename(kept.with_name("onerec.2.json"))
    data, rows = load(place.parent.parent / "data"), ["popularity", "onerec"]
    later = run(data, FORM, [1, 2], tmp_path / "runs", only=["popularity"], onto=tmp_path / "published")
    assert json.loads((later / "onerec.2.json").read_text())["commit"] == "of old"
    assert not list(later.glob("*.safetensors")), "no model was needed"
    summary = report.summarise(later, FORM)
    assert [summary["rows"][row]["seeds"] for row in rows] == [[1, 2], [2]]
    (later / "onerec.2.json").write_text(
        json.dumps(json.loads(kept.with_name("onerec.2.json").read_text()) | {"commit": "here"})
    )
    published.take_over(tmp_path / "published", later)
    assert json.loads((later / "onerec.2.json").read_text())["commit"] == "here", "what was made here stays"


def test_new_rows_stand_beside_the_published_ones(summary: dict[str, Any]) -> None:
    old = summary["rows"]["popularity"]
    rows = {"cooccurrence": old | {"parameters": 7}, "tiger": old | {"seeds": [3]}}
    published = summary | {"rows": rows, "commits": ["of old"]}
    table = report.onto(published, summary | {"rows": {"onerec": old, "cooccurrence": old}})
    assert list(table["rows"]) == ["cooccurrence", "tiger", "onerec"], "in the table's order"
    assert table["rows"]["cooccurrence"] == old
    assert table["seeds"] == [1, 3]
    assert table["commits"] == sorted(["of old", *summary["commits"]])
    with pytest.raises(CheckFailedError, match="of the full form, this one of the quick form"):
        report.onto(published | {"protocol": {"name": "full"}}, summary)


def test_the_paper_page_has_the_table_between_its_marks(summary: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "paper.md"
    page.write_text("# Page\n\nbefore\n")
    report.write_paper(page, summary)
    report.write_paper(page, summary)
    text = page.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    assert "| onerec+counts |" in text
    assert "0.0925" in text
    assert "before" in text
