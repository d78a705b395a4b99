"""The rows of the table in docs/paper.md, kept in the repository with the judge of them all: a run can go on from them.

A run's own folder is of one state of the code. Here each row names the commit that made it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from evaluation.pages import RESULTS
from evaluation.table1.ids import IDS
from evaluation.table1.jobs import JUDGE_FILE
from evaluation.table1.kept import JUDGE_WEIGHTS
from evaluation.table1.rqvae_ids import RQVAE_IDS
from onerec.errors import CheckFailedError, DependencyMissingError

DEFAULT_FOLDER = RESULTS / "table1"
JUDGE = (JUDGE_FILE, JUDGE_WEIGHTS, IDS)
"""With the ids that the judge knows items by: fitted on another processor, they are others."""
MORE = (RQVAE_IDS,)
"""What some rows are made with, all seeds alike; not there before the first of them is made."""


def take_over(published: Path, place: Path) -> None:
    """Copy judge and rows to a run's folder; rows that were made there with this judge stay as they are.

    Raises DependencyMissingError where there is no judge.
    """
    if missing := [name for name in JUDGE if not (published / name).is_file()]:
        raise DependencyMissingError(
            f"{published} has no {' and no '.join(missing)}.", "Run without --published: that makes all rows anew."
        )
    if _same_judge(published, place):
        own = {path.name for path in place.glob("*.*.json")}
        _copy(published, place, lambda path: path.name not in own)
    else:
        _copy(published, place)


def _same_judge(one: Path, other: Path) -> bool:
    files = [(one / name, other / name) for name in (JUDGE_WEIGHTS, IDS)]
    return all(a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes() for a, b in files)


def publish(place: Path, published: Path = DEFAULT_FOLDER) -> None:
    """Copy judge and rows of a run's folder here. Raises CheckFailedError where other rows here have another judge."""
    if (published / JUDGE_WEIGHTS).is_file() and not _same_judge(published, place):
        raise CheckFailedError(
            f"The rows in {published} have another judge.",
            "Give --published, so that rows are judged by that one, or delete them first.",
        )
    published.mkdir(parents=True, exist_ok=True)
    _copy(place, published)


def _copy(source: Path, target: Path, wanted: Callable[[Path], bool] = lambda _: True) -> None:
    more = (source / name for name in MORE if (source / name).is_file())
    for path in (*(source / name for name in JUDGE), *more, *filter(wanted, sorted(source.glob("*.*.json")))):
        shutil.copyfile(path, target / path.name)
