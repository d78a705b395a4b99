"""What was compared to choose the cascade of the A/B run, as a part of docs/paper.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.ab.protocol import FULL
from evaluation.pages import grid, put

BEGIN, END = "<!-- ab-choices-cascade -->\n", "<!-- /ab-choices-cascade -->\n"
TAKEN = ("retrieval_epochs", "ranking_epochs", "retrieved", "pre_ranked")


def table(found: dict[str, Any]) -> str:
    """Markdown: all trials, the most watched first; what the full form takes is marked."""
    names = ["retrieval's epochs", "rankers' epochs", "retrieved", "pre-ranked", "expected watch time of a visit, s"]
    rows = []
    for own in sorted(found["trials"], key=lambda one: -one["expected_watch_time_s"][0]):
        taken = all(own[name] == getattr(FULL, name) for name in TAKEN)
        mean, error = own["expected_watch_time_s"]
        cells = [*(str(own[name]) for name in TAKEN), f"{mean:.2f} ± {error:.2f}"]
        rows.append([f"**{cell}**" for cell in cells] if taken else cells)
    return grid(names, rows)


def write_paper(paper: Path, found: dict[str, Any]) -> None:
    """Put the comparison between its marks."""
    text = found["text"].strip().split("\n\n", 1)
    section = (
        f"{BEGIN}### How the cascade of the A/B run was chosen\n\nMade by `python -m evaluation ab --choose-cascade "
        f"--paper`. {text[1]}\n\n{found['users']:,} users, one seed ({found['seed']}); ± is the standard error over "
        f"users, the same for all rows.\n\n{table(found)}\n**Bold** is what the full form takes.\n{END}"
    )
    put(paper, section, BEGIN, END)
