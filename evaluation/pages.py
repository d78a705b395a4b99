"""Where the studies put what they found: results as JSON, and sections of docs/ with tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
PAPER = Path(__file__).resolve().parents[1] / "docs" / "paper.md"


def put(paper: Path, section: str, begin: str, end: str) -> None:
    """Put a section, which begins and ends with these marks, in the place of the former one, or at the end."""
    before = paper.read_text() if paper.is_file() else "# The paper's claims on real data\n\n"
    marked = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    whole = marked.sub(lambda _: section, before) if marked.search(before) else before.rstrip() + "\n\n" + section
    paper.write_text(whole)


def grid(head: Sequence[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join([line(list(head)), line(["---"] * len(head)), *map(line, rows)]) + "\n"


def line(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def spread(values: Iterable[float]) -> list[float]:
    """Mean and standard deviation over seeds; of one seed the deviation is 0 and says nothing."""
    found = np.array(list(values), dtype=np.float64)
    return [float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else 0.0]


def short(commits: Iterable[str]) -> str:
    """Each commit once, as one writes it; one of a changed tree, too."""
    return ", ".join(sorted({commit[:7] for commit in commits}))


def error_of_share(share: float, count: int) -> float:
    """The standard error of a share that was counted among so many."""
    return float((share * (1 - share) / count) ** 0.5)
