"""Trains what is still missing: every row of every seed is a file, and a second run computes none again."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.beauty import published
from evaluation.beauty.dataset import Beauty
from evaluation.beauty.members import Context
from evaluation.beauty.protocol import Form
from evaluation.beauty.rows import Family, Row, families
from evaluation.files import write_json
from evaluation.table1.origin import ROOT, commit, source_digest
from onerec.errors import SettingsError
from onerec.machine import machine

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "beauty"
SOURCES = (
    "evaluation/baselines/recorded.py",
    "evaluation/baselines/sasrec.py",
    "evaluation/baselines/sequences.py",
    "evaluation/baselines/targets.py",
    "evaluation/baselines/training.py",
    "evaluation/baselines/transformer.py",
    "evaluation/beauty/[!r]*.py",
    "evaluation/beauty/rows.py",
    "evaluation/devices.py",
    "inference/engine/*.py",
    "onerec/catalogue.py",
    "onerec/model/*.py",
    "stream/tokenizer/balanced_kmeans.py",
    "stream/tokenizer/embeddings.py",
    "stream/tokenizer/fit.py",
    "stream/tokenizer/semantic_ids.py",
)
"""What figures depend on. A change of any of them makes a folder of its own."""


def run(
    beauty: Beauty,
    form: Form,
    seeds: Sequence[int],
    folder: Path = DEFAULT_FOLDER,
    *,
    only: Sequence[str] = (),
    device: torch.device | None = None,
    onto: Path | None = None,
) -> Path:
    """Fill the folder of this form and this code with a file for each row and seed; the folder.

    `only` names rows; all by default. With `onto` the published rows of that folder count as made, whatever code made
    them. Raises SettingsError for a row that does not exist.
    """
    place = folder_of(form, folder)
    place.mkdir(parents=True, exist_ok=True)
    if onto is not None:
        published.take_over(onto, place)
    wanted, own = _chosen(only), device or torch.device("cpu")
    sliced = beauty.first(form.users)
    for seed in seeds:
        for family in families():
            missing = _missing(place, family, wanted, seed)
            if not missing:
                continue
            for row in family.make(Context(sliced, form, seed, place, own)):
                if row.name in missing:
                    write_json(place / f"{row.name}.{seed}.json", as_dict(row) | {"seed": seed} | origin(own))
                    LOG.info("%s, seed %d: %s", row.name, seed, json.dumps(row.test["unseen"]))
    return place


def folder_of(form: Form, folder: Path = DEFAULT_FOLDER) -> Path:
    """Where the rows of a form are: another form, and another state of the code, have another folder."""
    return folder / f"{form.name}-{form.digest()}-{source_digest(sources=SOURCES)}"


def as_dict(row: Row) -> dict[str, Any]:
    """A row as its file has it."""
    return {
        "row": row.name,
        **row.test["unseen"],
        "all": row.test["all"],
        "validation": row.validation,
        "parameters": row.parameters,
        "train_minutes": round(row.seconds / 60, 3),
        "details": row.details,
    }


def origin(device: torch.device) -> dict[str, Any]:
    """Where a figure was made."""
    where: dict[str, Any] = dict(machine())
    if device.type == "cuda":
        where["gpu"] = torch.cuda.get_device_name(device)
    return {"commit": commit(), "machine": where}


def _chosen(only: Sequence[str]) -> frozenset[str]:
    known = [row for family in families() for row in family.rows]
    if unknown := sorted(set(only) - set(known)):
        raise SettingsError(f"There is no row {', '.join(unknown)}.", f"Rows are {', '.join(known)}.")
    return frozenset(only or known)


def _missing(place: Path, family: Family, chosen: frozenset[str], seed: int) -> frozenset[str]:
    return frozenset(row for row in family.rows if row in chosen and not (place / f"{row}.{seed}.json").is_file())
