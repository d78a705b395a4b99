"""What a figure depends on: the source of all that trains, recommends and judges, and the commit it was run at."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "evaluation/baselines/*.py",
    "evaluation/table1/*.py",
    "evaluation/devices.py",
    "evaluation/ranking.py",
    "evaluation/rows.py",
    "inference/engine/*.py",
    "inference/sampler/pairs.py",
    "onerec/catalogue.py",
    "onerec/features.py",
    "onerec/model/*.py",
    "stream/replay/embeddings.py",
    "stream/replay/kuairand.py",
    "stream/replay/log.py",
    "stream/tokenizer/balanced_kmeans.py",
    "stream/tokenizer/codebook.py",
    "stream/tokenizer/embeddings.py",
    "stream/tokenizer/fit.py",
    "stream/tokenizer/semantic_ids.py",
    "trainer/batches.py",
    "trainer/budget.py",
    "trainer/lesson.py",
    "trainer/objectives.py",
    "trainer/parts.py",
    "trainer/samples.py",
    "trainer/seed.py",
    "trainer/seed_mode.py",
    "trainer/state.py",
    "trainer/update.py",
)
"""Recipes, models and data of all rows. A change of any of them makes a folder of its own."""
LAYOUT = (
    "evaluation/beauty/choices.py",
    "evaluation/beauty/choices_page.py",
    "evaluation/beauty/published.py",
    "evaluation/table1/choices.py",
    "evaluation/table1/choices_page.py",
    "evaluation/table1/trials.py",
    "evaluation/table1/guard.py",
    "evaluation/table1/orderings.py",
    "evaluation/table1/origin.py",
    "evaluation/table1/parallel.py",
    "evaluation/table1/picture.py",
    "evaluation/table1/published.py",
    "evaluation/table1/report.py",
    "evaluation/table1/run.py",
    "evaluation/baselines/running.py",
    "evaluation/baselines/popularity.py",
)
"""What changes no figure of a row."""
COMMIT_VARIABLE = "SOURCE_COMMIT"
RESULTS = ("evaluation/results", "docs")
"""What a run itself writes: it does not make the tree a changed one."""


def source_digest(root: Path = ROOT, sources: Sequence[str] = SOURCES) -> str:
    """Of the code of `sources` below `root`, without comments and docstrings.

    Raises FileNotFoundError for a source that is not there.
    """
    sha = hashlib.sha256()
    for pattern in sources:
        paths = sorted(root.glob(pattern))
        if not paths:
            raise FileNotFoundError(root / pattern)
        for path in paths:
            name = path.relative_to(root).as_posix()
            if name not in LAYOUT:
                sha.update(name.encode() + _code(path).encode())
    return sha.hexdigest()[:8]


def _code(path: Path) -> str:
    return _told(ast.parse(path.read_text()))


def _told(node: object) -> str:
    """The tree as text, the same in every version of Python: versions add fields, which are empty where not used."""
    if isinstance(node, list):
        return f"[{', '.join(_told(one) for one in node if not _is_text(one))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_told(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
    return f"{type(node).__name__}({', '.join(fields)})"


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def commit(root: Path = ROOT) -> str:
    """The commit of the tree below `root`; with `+changes` where the tree differs from it.

    Where SOURCE_COMMIT is set it is what that says: a copy of a tree may lie in a repository of another. Without git
    it is `unknown`.
    """
    if named := os.environ.get(COMMIT_VARIABLE):
        return named
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    changes = _git(root, "status", "--porcelain", "--", ".", *(f":!{path}" for path in RESULTS))
    return head + ("+changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
