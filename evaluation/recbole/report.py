"""The comparison with RecBole as a table, and as part of docs/paper.md."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from evaluation.pages import grid, put

BEGIN, END = "<!-- recbole -->\n", "<!-- /recbole -->\n"
COLUMNS = ("recall_at_5", "ndcg_at_5", "recall_at_10", "ndcg_at_10")
HEADINGS = ("Recall@5", "NDCG@5", "Recall@10", "NDCG@10", "Recall@10 with seen items")


def table(summary: dict[str, Any]) -> str:
    """Markdown."""
    head = ["row", *HEADINGS, "the same of validation", "parameters", "best epoch", "epochs", "minutes", "seed"]
    lines = list[list[str]]()
    for row in summary["rows"]:
        columns = [f"{row['unseen'][name]:.4f}" for name in COLUMNS]
        seen = [f"{row['all']['recall_at_10']:.4f}", _validation(row)]
        trained = [f"{row['parameters'] / 1e6:.2f}M", str(row["best_epoch"]), str(row["epochs"])]
        lines.append([row["row"], *columns, *seen, *trained, f"{row['seconds'] / 60:.1f}", str(row["seed"])])
    return grid(head, lines)


def _validation(row: dict[str, Any]) -> str:
    """Of ours only the figure without seen items is kept, by which its epoch was chosen."""
    return f"{row['by_validation']['all']['recall_at_10']:.4f}" if "by_validation" in row else "-"


def write_paper(paper: Path, summary: dict[str, Any]) -> None:
    """Put protocol and table between their marks in docs/paper.md; makes the file where there is none."""
    told = summary["protocol"]
    section = (
        f"{BEGIN}### Our SASRec against RecBole's\n\nMade by `python -m evaluation recbole --python PATH --length "
        f"{told['length']} --rows {','.join(told['rows'])} --paper`: {told['users']:,} users, histories of "
        f"{told['length']} items for RecBole, at most {told['epochs']} epochs, patience {told['patience']}; commit "
        f"{summary['commit'][:7]}, on {summary['machine'].get('gpu', summary['machine']['cpu'])}.\n\n"
        f"{textwrap.dedent(told['text']).strip()}\n\n{table(summary)}{END}"
    )
    put(paper, section, BEGIN, END)
