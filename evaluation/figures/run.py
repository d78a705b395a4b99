"""Makes the points of the figures that are still missing, each a file; a second run computes none again."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.baselines.training import CPU
from evaluation.devices import use
from evaluation.figures import scale
from evaluation.figures.confidence import confidence
from evaluation.figures.forms import Form, described
from evaluation.figures.ratio import Ratios
from evaluation.files import write_json
from evaluation.table1.ids import with_kept_ids
from evaluation.table1.jobs import origin
from evaluation.table1.kept import Context
from evaluation.table1.origin import ROOT, SOURCES, source_digest
from evaluation.table1.run import DEFAULT_FOLDER as TABLE_FOLDER
from evaluation.table1.run import folder_of
from evaluation.table1.world import load
from onerec.errors import SettingsError
from onerec.model.presets import ModelConfig, preset

LOG = logging.getLogger(__name__)
DEFAULT_FOLDER = ROOT / "runs" / "figures"
FIGURES = ("4", "5", "6")
OWN = tuple(f"evaluation/figures/{name}.py" for name in ("confidence", "ratio", "scale"))


def run(
    form: Form,
    folder: Path = DEFAULT_FOLDER,
    tables: Path = TABLE_FOLDER,
    *,
    only: Sequence[str] = FIGURES,
    config: ModelConfig | None = None,
    load_world: Callable[..., Any] = load,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """All points of the figures `only` (4, 5, 6), from the folder where they are there, with where they come from.

    Models that Table 1 has trained for the same form are taken from its folder below `tables`. Raises SettingsError
    for a figure that does not exist.
    """
    if unknown := sorted(set(only) - set(FIGURES)):
        raise SettingsError(f"There is no figure {', '.join(unknown)}.", f"Figures are {', '.join(FIGURES)}.")
    place = folder / f"{form.name}-{form.digest()}-{source_digest(sources=(*SOURCES, *OWN))}"
    place.mkdir(parents=True, exist_ok=True)

    @functools.cache
    def context() -> Context:
        use(device)
        table, own = folder_of(form.table, tables), config or preset("small")
        table.mkdir(parents=True, exist_ok=True)
        world = with_kept_ids(load_world(form.table, own), table, own)
        return Context(world, form.table, own, form.seed, table, device)

    @functools.cache
    def ratios() -> Ratios:
        return Ratios(context())

    found: dict[str, Any] = {"form": described(form)}
    if "4" in only:
        found["ratio"] = [
            _point(place / f"ratio-{one}.json", device, lambda one=one: ratios().point(one))  # type: ignore[misc]
            for one in form.ratios
        ]
    if "5" in only:
        found["confidence"] = _point(place / "confidence.json", device, lambda: confidence(context()))
    if "6" in only:
        found |= _scales(form, place, device, context)
    return found


def _scales(form: Form, place: Path, device: torch.device, context: Callable[[], Context]) -> dict[str, Any]:
    """The points of figure 6 and the law fitted to them."""

    def point(width: int) -> dict[str, Any]:
        return scale.point(context(), width, form.scale_samples, form.held_out)

    found = [_point(place / f"scale-{width}.json", device, functools.partial(point, width)) for width in form.widths]
    law = scale.law([one["parameters"] for one in found], [one["loss"] for one in found])
    return {"scale": found, "law": law}


def _point(path: Path, device: torch.device, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """From its file, or made and written."""
    if not path.is_file():
        write_json(path, make() | origin(device))
        LOG.info("%s is made", path.name)
    found: dict[str, Any] = json.loads(path.read_text())
    return found
