"""What was compared to choose how the TIGER row trains, as a part of docs/paper.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.pages import error_of_share, grid, put, short

BEGIN, END = "<!-- beauty-choices -->\n", "<!-- /beauty-choices -->\n"
SIZES = {"width": "width", "layers": "layers", "dropout": "dropout", "forget": "items left out"}
RECIPE = {
    "epochs": "epochs",
    "batch": "batch",
    "learning_rate": "rate",
    "weight_decay": "weight decay",
    "smoothing": "smoothing",
}


def table(found: dict[str, Any]) -> str:
    """Markdown: the best Recall@10 first; what the full form takes is marked."""
    head = ["row", *SIZES.values(), *RECIPE.values(), "parameters", "best epoch", "Recall@10", "NDCG@10"]
    rows = []
    for own in sorted(found["trials"], key=_recall, reverse=True):
        tiger = own["tiger"]
        cells = [f"{tiger[name]:g}" for name in SIZES] + [f"{tiger['recipe'][name]:g}" for name in RECIPE]
        measured = [f"{own['validation']['unseen'][name]:.4f}" for name in ("recall_at_10", "ndcg_at_10")]
        name = "**tiger**" if tiger == found["taken"] else "tiger"
        rows.append([name, *cells, f"{own['parameters'] / 1e6:.2f}M", str(own["best_epoch"]), *measured])
    return grid(head, rows)


def write_paper(paper: Path, found: dict[str, Any]) -> None:
    """Put the comparison between its marks."""
    text = found["text"].strip().split("\n\n", 1)[1]
    error = error_of_share(max(map(_recall, found["trials"])), found["users"])
    section = (
        f"{BEGIN}### How the TIGER row's training was chosen\n\nMade by `python -m evaluation beauty --choose "
        f"--paper`.\n\n{text}\n\n{found['users']:,} users, {len(found['trials'])} trainings, commit "
        f"{short(own['commit'] for own in found['trials'])}; the standard error of one Recall is "
        f"about {error:.4f}, of a difference on the same users less.\n\n{table(found)}\n**Bold** is what the full "
        f"form takes.\n{END}"
    )
    put(paper, section, BEGIN, END)


def _recall(own: dict[str, Any]) -> float:
    return float(own["validation"]["unseen"]["recall_at_10"])
