"""How the TIGER row's training was chosen: by the validation item, so that it is no weak baseline.

The recipe of the table's other generative rows, and what differs from it in one thing or two: regularisation, and
length. One seed; Recall and NDCG of the validation item of all users, with the beam of the table. The test item is not
looked at. Size, rate and batch are those of the other rows and were not compared.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from evaluation import trying
from evaluation.beauty.candidates import Member, candidates
from evaluation.beauty.dataset import Beauty
from evaluation.beauty.members import Context, plan, tokens_for, trained
from evaluation.beauty.mixture import Mixture, both_figures
from evaluation.beauty.protocol import Form, TigerForm
from evaluation.beauty.run import DEFAULT_FOLDER, folder_of, origin
from evaluation.beauty.tokens import TEXT
from evaluation.beauty.training import Recipe
from evaluation.files import write_json

LOG = logging.getLogger(__name__)
SEED = 1
TRIALS = (
    TigerForm(),
    TigerForm(dropout=0.3),
    TigerForm(dropout=0.2),
    TigerForm(dropout=0.1),
    TigerForm(forget=0.1),
    TigerForm(recipe=Recipe(smoothing=0.1)),
    TigerForm(dropout=0.3, recipe=Recipe(epochs=15)),
)


def choose(
    beauty: Beauty,
    form: Form,
    trials: tuple[TigerForm, ...] = TRIALS,
    folder: Path = DEFAULT_FOLDER,
    *,
    device: torch.device,
    processes: int = 1,
) -> dict[str, Any]:
    """All trials, side by side in so many processes; each is a file in the form's folder and not made again."""
    place = folder_of(form, folder) / "choices"
    place.mkdir(parents=True, exist_ok=True)
    bench = Context(beauty.first(form.users), form, SEED, place, device)
    tokens_for(bench, TEXT)  # before processes want them at once
    missing = [trial for trial in trials if not _file(place, trial).is_file()]
    for trial, own in trying.each(tried, missing, bench, device, processes):
        write_json(_file(place, trial), own)
        LOG.info("%s: %s", _name(trial), json.dumps(own["validation"]["unseen"]))
    return {
        "text": __doc__,
        "seed": SEED,
        "users": len(bench.beauty),
        "taken": dataclasses.asdict(form.tiger),
        "trials": [json.loads(_file(place, trial).read_text()) for trial in trials],
    }


def tried(trial: TigerForm, bench: Context) -> dict[str, Any]:
    """Train one model and measure it on the validation item."""
    at = dataclasses.replace(bench, form=dataclasses.replace(bench.form, tiger=trial))
    started_s = time.monotonic()
    found = trained(at, plan("tiger", at.form), TEXT)
    member = Member(found.model, tokens_for(at, TEXT).catalogue)
    beams = candidates([member], at.beauty, "validation", at.form.beam)
    figures = both_figures(beams, torch.from_numpy(at.beauty.truth("validation")), Mixture())
    return {
        "tiger": dataclasses.asdict(trial),
        "validation": figures,
        "best_epoch": found.history["best_epoch"],
        "parameters": sum(parameter.numel() for parameter in found.model.parameters()),
        "seconds": round(time.monotonic() - started_s, 1),
    } | origin(at.device)


def _file(place: Path, trial: TigerForm) -> Path:
    return place / f"{_name(trial)}.json"


def _name(trial: TigerForm) -> str:
    """What differs from the defaults."""
    usual, own = dataclasses.asdict(TigerForm()), dataclasses.asdict(trial)
    usual, own = (one | one.pop("recipe") for one in (usual, own))
    return "-".join(["tiger", *(f"{field}={value}" for field, value in own.items() if value != usual[field])])
