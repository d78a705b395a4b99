"""The semantic ids of both sides of the split, kept in a run's folder beside the models that know them.

Fitting ids again gives others on another processor: a matrix product that rounds differently moves a few items, and
from there the clusters go their own way. A model that is read back with such ids, the published judge above all, would
be asked about items that it has never seen. So the ids are a part of what is kept and of what is published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evaluation.table1.kept import alone
from evaluation.table1.world import Side, World
from onerec.catalogue import CatalogueSnapshot, Integers
from onerec.errors import CheckFailedError
from onerec.model.presets import ModelConfig

IDS = "ids.safetensors"


def with_kept_ids(world: World, place: Path, config: ModelConfig) -> World:
    """The world with the ids of a folder, int32 [N, L] of each side; where the folder has none it gets the world's own.

    Raises CheckFailedError where the folder's ids are of other items.
    """
    path = place / IDS
    own = {name: _codes(side.catalogue) for name, side in (("rows", world.rows), ("judge", world.judge))}
    with alone(path.with_suffix(".lock")):
        if not path.is_file():
            unfinished = path.with_suffix(".part")
            save_file(own, unfinished)
            unfinished.replace(path)
    kept = load_file(path)
    if any(kept[name].shape != codes.shape for name, codes in own.items()):
        raise CheckFailedError(f"The semantic ids in {path} are of other items.", "Delete that folder and run again.")
    return replace(world, rows=_with(world.rows, kept["rows"], config), judge=_with(world.judge, kept["judge"], config))


def named(known: CatalogueSnapshot, codes: Integers, code_count: int) -> CatalogueSnapshot:
    """The same items, leaf i as before, by other ids: codes [N, L], each below `code_count`."""
    return CatalogueSnapshot.of(
        known.item_ids,
        codes,
        known.durations_ms,
        (known.tag_sets, known.tags),
        code_count=code_count,
        offset=known.offset,
        codebook_version=known.codebook_version,
    )


def _with(side: Side, codes: Tensor, config: ModelConfig) -> Side:
    return replace(side, catalogue=named(side.catalogue, codes.numpy(), config.codes))


def _codes(catalogue: CatalogueSnapshot) -> Tensor:
    return torch.from_numpy(catalogue.codes.astype(np.int32))
