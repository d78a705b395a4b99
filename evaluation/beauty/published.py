"""Rows of one seed each that are kept in the repository: a run goes on from them, on another machine, too.

A run's own folder is of one state of the code. Here each row names the commit and the machine that made it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from evaluation.beauty.rows import families
from evaluation.pages import RESULTS

DEFAULT_FOLDER = RESULTS / "beauty"


def take_over(published: Path, place: Path) -> None:
    """Copy the rows to the folder of a run, but none that was made there."""
    for path in rows_in(published):
        if not (place / path.name).exists():
            shutil.copyfile(path, place / path.name)


def publish(place: Path, published: Path = DEFAULT_FOLDER) -> None:
    """Copy the rows of a run's folder here."""
    published.mkdir(parents=True, exist_ok=True)
    for path in rows_in(place):
        shutil.copyfile(path, published / path.name)


def rows_in(folder: Path) -> list[Path]:
    """Files of rows; how the training of a model went is beside them in files of the same kind."""
    known = {row for family in families() for row in family.rows}
    return [path for path in sorted(folder.glob("*.*.json")) if json.loads(path.read_text()).get("row") in known]
