"""How long the rows that are not generative train, and how wide the cascades' stages are: the same development period.

Models train on the rows' users' exposures before 28 April. Sequence models are compared by Recall@10 of what these
users took to from 28 to 30 April, CRM as it is asked for 18 s; the cascades' pre-ranker and ranker, which rate what was
exposed, by their cross-entropy over these users' exposures of those days, all objectives summed; and the cascades'
widths by Recall@10 of the ten best. Nothing from 1 May on is read.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from evaluation import trying
from evaluation.baselines.cascade import Sizes
from evaluation.baselines.crm import CRM
from evaluation.baselines.multi_objective import ObjectiveModel, targets
from evaluation.baselines.sequences import Longs, Sequences, sequence_batch, shifted
from evaluation.baselines.training import CPU
from evaluation.files import write_json
from evaluation.table1.accuracy import accuracy
from evaluation.table1.choices import SEED, KuaiRandBefore, development
from evaluation.table1.jobs import origin
from evaluation.table1.kept import Context
from evaluation.table1.origin import ROOT, source_digest
from evaluation.table1.protocol import FULL, SPLIT_MS
from evaluation.table1.rows import CASCADES, CHUNK, CRM_WISHES, cascade_of, recommend, sequence_model, through
from evaluation.table1.world import World, load
from onerec.model.presets import preset

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "table1-choices-baselines"
EPOCHS = {
    "sasrec": (5, 10, 20),
    "sasrec-softmax": (5, 10, 20),
    "bert4rec": (5, 10, 20),
    "fdsa": (10, 20),
    "crm": (3, 10, 20),
    "pre-ranker": (1, 2, 4),
    "ranker": (1, 2, 4),
}
"""CRM's transformer variant takes as many as CRM."""
SIZES = tuple(Sizes(*pair) for pair in ((500, 100), (200, 100), (200, 50), (100, 50), (100, 20), (50, 20), (20, 10)))


class Trial(NamedTuple):
    """A model of rows.SEQUENCE_MODELS, or a cascade of rows.CASCADES."""

    name: str
    epochs: int | None = None
    sizes: Sizes | None = None

    @property
    def file(self) -> str:
        """Where its figures are kept."""
        what = f"{self.epochs}" if self.sizes is None else f"{self.sizes.retrieved}-{self.sizes.pre_ranked}"
        return f"{self.name}-{what}.json"


class Later(NamedTuple):
    """What the rows' users were exposed to in the development period."""

    all: Sequences  # with all before
    new: Longs  # [U] how many of each user's newest exposures


class Development(NamedTuple):
    """All that trials share."""

    world: World
    later: Later
    folder: Path


def choose(folder: Path = DEFAULT_FOLDER, processes: int = 1) -> dict[str, Any]:
    """All trials, side by side in so many processes; each is a file and not made again."""
    place = folder / source_digest()
    place.mkdir(parents=True, exist_ok=True)
    models = [Trial(name, epochs=each) for name, several in EPOCHS.items() for each in several]
    cascades = [Trial(name, sizes=each) for name in CASCADES for each in SIZES]
    if any(not (place / trial.file).is_file() for trial in (*models, *cascades)):
        world = development(preset("small"))
        bench = Development(world, later_of(world), place)
        for trials in (models, cascades):  # a cascade is of models that are kept
            missing = [trial for trial in trials if not (place / trial.file).is_file()]
            for trial, figures in trying.each(tried, missing, bench, CPU, processes):
                write_json(place / trial.file, figures)
                LOG.info("%s", json.dumps(figures))
    made = [json.loads((place / trial.file).read_text()) for trial in (*models, *cascades)]
    return {"text": __doc__, "seed": SEED, "trials": made}


def later_of(world: World) -> Later:
    """Of a development world."""
    full = load(dataclasses.replace(FULL, cases=1), preset("small"), KuaiRandBefore, SPLIT_MS).rows
    if not np.array_equal(full.items.item_ids, world.rows.items.item_ids):
        raise AssertionError("items are known before any split")
    before = dict(zip(world.rows.user_ids.tolist(), np.diff(world.rows.past.starts).tolist(), strict=True))
    counts = zip(full.user_ids.tolist(), np.diff(full.past.starts).tolist(), strict=True)
    return Later(full.past, np.array([count - before.get(user, 0) for user, count in counts]))


def tried(trial: Trial, bench: Development) -> dict[str, Any]:
    """Train what is not kept yet, and measure it."""
    started_s = time.monotonic()
    at = Context(bench.world, dataclasses.replace(FULL, candidates=1), preset("small"), SEED, bench.folder)
    figures: dict[str, Any] = {"row": trial.name, "cases": len(bench.world.cases)}
    if trial.sizes is not None:
        models = [
            sequence_model(name, at, FULL.epochs_of(name)) for name in (CASCADES[trial.name], "pre-ranker", "ranker")
        ]
        found = through(cascade_of(models, trial.sizes), at)
        figures |= dataclasses.asdict(trial.sizes) | accuracy(found.ranking, bench.world.cases.truth)
    else:
        assert trial.epochs is not None
        model = sequence_model(trial.name, at, trial.epochs)
        figures["epochs"] = trial.epochs
        if isinstance(model, CRM):
            model.condition = CRM_WISHES["18s"]
        if isinstance(model, ObjectiveModel):
            figures |= held_out(model, bench.later)
        else:
            figures |= accuracy(recommend(model, at).ranking, bench.world.cases.truth)
    return figures | {"seconds": round(time.monotonic() - started_s, 1)} | origin(CPU)


@torch.inference_mode()
def held_out(model: ObjectiveModel, later: Later) -> dict[str, Any]:
    """Cross-entropy of each objective over the new exposures, each told by what the user did before it; and the sum."""
    users = np.flatnonzero(later.new > 0)
    losses, counts = [], []
    for first in range(0, len(users), CHUNK):
        own = users[first : first + CHUNK]
        batch = sequence_batch(later.all, own, model.length + 1)
        inputs, following, _ = shifted(batch)
        values, known = (columns[:, 1:] for columns in targets(batch))
        fresh = _newest(batch.lengths.numpy() - 1, later.new[own], following.shape[1])
        known = known & torch.from_numpy(fresh).unsqueeze(-1)
        logits = model.next_logits(inputs, following)
        entropies = functional.binary_cross_entropy_with_logits(logits, values, reduction="none") * known
        losses.append(entropies.sum((0, 1)))
        counts.append(known.sum((0, 1)))
    means = torch.stack(losses).sum(0) / torch.stack(counts).sum(0)
    return {"losses": means.tolist(), "loss": float(means.sum())}


def _newest(ends: Longs, count: Longs, width: int) -> NDArray[np.bool_]:
    """Bool [B, width]: the last `count` places before `ends`."""
    places = np.arange(width)
    found: NDArray[np.bool_] = (places < ends[:, None]) & (places >= (ends - count)[:, None])
    return found
