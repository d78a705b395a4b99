"""RecBole's SASRec and ours on Amazon Beauty: the same users, split, ranking and columns.

**Data and split.** Those of the Beauty table: the last item of a user is the test item, the last but one the validation
item; ranking is against all items. RecBole makes the same split itself (leave one out, by time).

**Rows.** `recbole` is RecBole's SASRec with its own defaults (width 64, two layers, two heads, dropout .5, softmax over
all items, Adam at .001, batches of 2048); `recbole-wide` is the same with the sizes of ours; `sasrec-softmax` is the
row of the Beauty table. RecBole stops after `patience` epochs without a better Recall@10 of the validation item and
keeps the best; ours has a fixed number of epochs and keeps the best of those looked at.

**Columns.** Both are ranked by the same code from the scores that each gives. RecBole leaves in what a user has seen,
so the columns are given with seen items struck off, and not; and `recbole_says` is what RecBole itself measures, which
has to be the latter.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.beauty.accuracy import batches, figures, itemwise, places_of, seen_items, without_seen
from evaluation.beauty.dataset import Beauty, Floats, Part
from evaluation.beauty.protocol import FULL
from evaluation.beauty.run import SOURCES, origin
from evaluation.beauty.sequence import TRUNK, scorer, train_sasrec
from evaluation.files import write_json
from evaluation.table1.origin import ROOT, source_digest
from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError

LOG = logging.getLogger(__name__)
SCRIPT = Path(__file__).with_name("theirs.py")
RESULTS = Path(__file__).resolve().parents[1] / "results" / "recbole.json"
DEFAULT_FOLDER = ROOT / "runs" / "recbole"
SAME = 5e-4
"""RecBole rounds its figures to four places."""
HOW_TO_GET = (
    "Make an environment for it: `python -m venv recbole`, in it `pip install recbole --no-deps` and `pip install "
    '"numpy<2" "pandas<2.3" "scipy<1.15" "scikit-learn<1.6" torch tensorboard tqdm colorlog colorama pyyaml tabulate '
    "texttable psutil`; then give its python by --python."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much of everything."""

    python: str
    users: int | None = None  # the first ones; None for all
    length: int = 50  # of RecBole's histories; ours has 50
    epochs: int = 200  # of RecBole, at most
    patience: int = 10
    our_epochs: int = FULL.sequence.epochs
    batch_share: float = 1.0  # of the batches of both, for slices, whose epochs have few steps
    rows: tuple[str, ...] = ("recbole", "recbole-wide", "sasrec-softmax")
    seeds: tuple[int, ...] = (1,)
    threads: int = 1

    def digest(self) -> str:
        """Changes with what changes a row's figures, and with their code."""
        told = asdict(replace(self, python="", rows=(), seeds=(), threads=1))
        code = source_digest(sources=(*SOURCES, "evaluation/recbole/[!r]*.py"))
        return f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]}-{code}"


ROWS: dict[str, dict[str, Any]] = {
    "recbole": {},
    "recbole-wide": {"hidden_size": TRUNK.width, "inner_size": TRUNK.hidden, "n_heads": TRUNK.heads},
}
"""What differs from RecBole's defaults."""
OURS = "sasrec-softmax"
THEIR_BATCH = 2048
"""RecBole's default."""


def compare(beauty: Beauty, settings: Settings, device: torch.device, folder: Path = DEFAULT_FOLDER) -> dict[str, Any]:
    """The rows of all seeds, as they are written; a row that `folder` has is not made again.

    RecBole takes a GPU where its torch has one, whatever `device` ours is trained on.
    Raises SettingsError, or DependencyMissingError without RecBole.
    """
    if unknown := sorted(set(settings.rows) - {*ROWS, OURS}):
        raise SettingsError(f"There is no row {', '.join(unknown)}.", f"Rows are {', '.join([*ROWS, OURS])}.")
    _check(settings.python)
    own, files = beauty.first(settings.users), list[dict[str, Any]]()
    place = folder / settings.digest()
    place.mkdir(parents=True, exist_ok=True)
    for seed in settings.seeds:
        for name in settings.rows:
            file = place / f"{name}.{seed}.json"
            if not file.is_file():
                unfinished = file.with_suffix(".unfinished")
                made = (
                    ours(own, settings, seed, device)
                    if name == OURS
                    else recbole(own, settings, ROWS[name], seed, unfinished)
                )
                write_json(file, {"row": name, "seed": seed} | made | origin(device))
                shutil.rmtree(unfinished, ignore_errors=True)
            files.append(json.loads(file.read_text()))
            LOG.info("%s, seed %d, best epoch %d: %s", name, seed, files[-1]["best_epoch"], files[-1]["unseen"])
    counted = {"users": len(own), "items": own.item_count, "interactions": len(own.items)}
    protocol = {"text": __doc__, **asdict(replace(settings, python="")), **counted}
    return {"protocol": protocol, "rows": files} | origin(device)


def recbole(beauty: Beauty, settings: Settings, changes: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Its columns; `folder` keeps what an interrupted run goes on from, and what RecBole says.

    Raises CheckFailedError where it ends with an error, or where its own figures are others.
    """
    said, scores = _train(beauty, settings, changes, seed, folder)
    columns = places(beauty, "test", scores["test"], scores["items"])
    theirs = {f"{name.split('@')[0]}_at_{name.split('@')[1]}": value for name, value in said.pop("test").items()}
    differ = {name: (value, columns["all"][name]) for name, value in theirs.items()}
    if max(abs(one - other) for one, other in differ.values()) > SAME:
        raise CheckFailedError(f"RecBole's figures are not those of its scores here: {differ}.", "Mend the comparison.")
    by_validation = places(beauty, "validation", scores["validation"], scores["items"])
    found: dict[str, Any] = {**columns, "by_validation": by_validation, "recbole_says": theirs}
    found |= said
    return found


def _train(
    beauty: Beauty, settings: Settings, changes: dict[str, Any], seed: int, folder: Path
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """What RecBole says of a row, and the vectors that it scores with."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "sequences.npz", starts=beauty.starts, items=beauty.items)
    config = {
        "seed": seed,
        "epochs": settings.epochs,
        "stopping_step": settings.patience,
        "train_batch_size": round(settings.batch_share * THEIR_BATCH),
        "MAX_ITEM_LIST_LENGTH": settings.length,
        **changes,
    }
    told = {
        "sequences": str(folder / "sequences.npz"),
        "folder": str(folder),
        "config": config,
        "threads": settings.threads,
    }
    (folder / "settings.json").write_text(json.dumps(told))
    log = folder / "recbole.log"
    LOG.info("RecBole trains, a line an epoch in %s", log)
    with log.open("a") as stream:
        command = [settings.python, str(SCRIPT), str(folder / "settings.json")]
        done = subprocess.run(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise CheckFailedError(
            f"RecBole ended with an error: {log.read_text().strip()[-2000:]}",
            f"Mend it, or begin anew without {folder}, which the run goes on from.",
        )
    with np.load(folder / "scores.npz") as kept:
        scores = {name: kept[name] for name in kept.files}
    return json.loads((folder / "said.json").read_text()) | {"config": config}, scores


def ours(beauty: Beauty, settings: Settings, seed: int, device: torch.device) -> dict[str, Any]:
    """The columns of the row `sasrec-softmax`."""
    started_s = time.monotonic()
    batch = round(settings.batch_share * FULL.sequence.batch)
    recipe = replace(FULL.sequence, epochs=settings.our_epochs, batch=batch)
    model, history = train_sasrec(beauty, recipe, seed, device)
    found: dict[str, Any] = {
        name: figures(own) for name, own in itemwise(scorer(model), beauty, "test", TRUNK.length, device).items()
    }
    size = sum(parameter.numel() for parameter in model.parameters())
    config = {"trunk": asdict(TRUNK), "recipe": asdict(recipe)}
    return found | history | {"parameters": size, "config": config, "seconds": time.monotonic() - started_s}


def places(beauty: Beauty, part: Part, users: Floats, items: Floats) -> dict[str, dict[str, float]]:
    """The columns by scores of user vectors [U, d] and item vectors [N, d]: seen items struck off, and not."""
    truth, seen, vectors = beauty.truth(part), seen_items(beauty, part), torch.from_numpy(items)
    found: dict[str, list[Tensor]] = {"unseen": [], "all": []}
    for at in batches(truth, 256):
        scores, wanted = torch.from_numpy(users[at]) @ vectors.t(), torch.from_numpy(truth[at])
        found["all"].append(places_of(scores, wanted))
        found["unseen"].append(places_of(without_seen(scores, torch.from_numpy(seen[at])), wanted))
    return {which: figures(torch.cat(parts).numpy()) for which, parts in found.items()}


def _check(python: str) -> None:
    """That RecBole is there."""
    try:
        done = subprocess.run([python, "-c", "import recbole"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise DependencyMissingError(f"{python} cannot be run: {error}.", HOW_TO_GET) from error
    if done.returncode:
        raise DependencyMissingError(f"{python} has no RecBole: {done.stderr.strip()[-300:]}", HOW_TO_GET)
