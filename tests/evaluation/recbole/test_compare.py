"""The comparison with RecBole: its scores are ranked as ours are, and what contradicts itself is refused."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.beauty.dataset import Beauty
from evaluation.recbole.compare import Settings, compare, places, recbole
from evaluation.recbole.report import table, write_paper
from onerec.errors import CheckFailedError, DependencyMissingError

BEAUTY = Beauty(np.array([0, 4, 8]), np.array([0, 1, 2, 3, 4, 0, 5, 1]), np.zeros((6, 2), np.float32))
"""Two users; their test items are 3 and 1."""
USERS = np.eye(2, dtype=np.float32)
ITEMS = np.array([[9, 9], [8, 1], [7, 0], [6, 2], [0, 3], [0, 4]], np.float32)
"""The first user's 3 is behind three seen items; the second one's 1 is behind 3 and three seen ones."""
HIT = {"recall@5": 1.0, "ndcg@5": (1 / np.log2(5) + 1 / np.log2(6)) / 2}
PYTHON = os.environ.get("RECBOLE_PYTHON", "")
"""Of an environment that has RecBole: what is asked of RecBole itself is tested there."""
STANDS_IN = """
import json, sys
import numpy as np
told = json.loads(open(sys.argv[1]).read())
with np.load(told["sequences"]) as kept:
    assert kept["starts"].tolist() == [0, 4, 8]
np.savez(told["folder"] + "/scores.npz", items={items}, test={users}, validation={users})
said = dict(test={said}, epochs=3, best_epoch=2, validation=0.5, seconds=1.0, parameters=10)
open(told["folder"] + "/said.json", "w").write(json.dumps(said))
"""


def environment(folder: Path, said: dict[str, float]) -> str:
    """A python that has RecBole, as far as the comparison can tell."""
    script, python = folder / "stands_in.py", folder / "python"
    script.write_text(STANDS_IN.format(items=ITEMS.tolist(), users=USERS.tolist(), said=json.dumps(said)))
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nexec {sys.executable} {script} "$2"\n')
    python.chmod(0o755)
    return str(python)


def test_scores_are_ranked_with_seen_items_and_without() -> None:
    found = places(BEAUTY, "test", USERS, ITEMS)
    assert found["all"]["recall_at_5"] == 1.0
    assert found["all"]["ndcg_at_5"] == pytest.approx(HIT["ndcg@5"])
    assert found["unseen"]["ndcg_at_5"] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_its_figures_are_checked_against_its_scores(tmp_path: Path) -> None:
    row = recbole(BEAUTY, Settings(python=environment(tmp_path, HIT)), {"hidden_size": 2}, 4, tmp_path / "row")
    assert row["recbole_says"]["recall_at_5"] == row["all"]["recall_at_5"] == 1.0
    assert (row["config"]["seed"], row["config"]["hidden_size"], row["epochs"]) == (4, 2, 3)
    assert "| recbole | 1.0000 |" in table({"rows": [{"row": "recbole", "seed": 4} | row]})
    with pytest.raises(CheckFailedError, match="not those of its scores"):
        recbole(BEAUTY, Settings(python=environment(tmp_path, HIT | {"recall@5": 0.4})), {}, 4, tmp_path / "row")


def test_an_error_of_recbole_is_told_with_what_it_said(tmp_path: Path) -> None:
    python = environment(tmp_path, HIT)
    (tmp_path / "stands_in.py").write_text("raise SystemExit('no memory is left')")
    with pytest.raises(CheckFailedError, match="no memory is left"):
        recbole(BEAUTY, Settings(python=python), {}, 4, tmp_path / "row")


@pytest.mark.skipif(not PYTHON, reason="RECBOLE_PYTHON names no environment with RecBole")
def test_an_interrupted_run_goes_on_after_its_best_epoch(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sequences = rng.permuted(np.tile(np.arange(16), (40, 1)), axis=1)[:, :8]
    beauty = Beauty(np.arange(0, 321, 8), sequences.ravel(), np.zeros((16, 2), np.float32))
    shorter = Settings(python=PYTHON, epochs=3, length=5)
    recbole(beauty, shorter, {}, 1, tmp_path / "row")
    before = json.loads((tmp_path / "row" / "said.json").read_text())
    row = recbole(beauty, replace(shorter, epochs=5), {}, 1, tmp_path / "row")
    assert f"Resume training from epoch {before['best_epoch']}" in (tmp_path / "row" / "recbole.log").read_text()
    assert row["epochs"] == 5
    assert row["best_epoch"] >= before["best_epoch"]
    assert row["validation"] >= before["validation"]
    assert row["seconds"] > before["seconds"]


def test_without_recbole_it_says_how_to_get_it(tmp_path: Path) -> None:
    for python in (sys.executable, str(tmp_path / "nowhere")):
        with pytest.raises(DependencyMissingError, match="pip install recbole"):
            compare(BEAUTY, Settings(python=python), torch.device("cpu"))


def test_a_run_is_kept_and_is_a_section_of_the_page(tmp_path: Path) -> None:
    told = Settings(python=environment(tmp_path, HIT), rows=("recbole",))
    summary = compare(BEAUTY, told, torch.device("cpu"), tmp_path / "runs")
    (tmp_path / "stands_in.py").unlink()
    assert compare(BEAUTY, told, torch.device("cpu"), tmp_path / "runs")["rows"] == summary["rows"]
    assert not list((tmp_path / "runs").glob("*/*.unfinished"))
    paper = tmp_path / "paper.md"
    paper.write_text("# Title\n\nText.\n")
    for _ in range(2):
        write_paper(paper, summary)
    assert paper.read_text().startswith("# Title\n\nText.\n")
    assert paper.read_text().count("### Our SASRec against RecBole's") == 1
    assert "| recbole | 1.0000 |" in paper.read_text()
