"""The items of Table 1 with TIGER's own ids, for the row `tiger-rqvae-s`: made once for all seeds of a form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluation.baselines.rqvae import RQVAESettings, tokenise
from evaluation.table1.ids import named
from evaluation.table1.kept import Context, alone
from onerec.model.presets import ModelConfig

RQVAE_IDS = "rqvae-ids.npy"
STEPS_OF_EPOCH = 100
"""Of the RQ-VAE for each of the form's epochs: 2000 in the full form."""


def rqvae_settings(epochs: int) -> RQVAESettings:
    """TIGER's sizes, trained as long as a form has it."""
    return RQVAESettings(steps=STEPS_OF_EPOCH * epochs)


def rqvae_config(config: ModelConfig) -> ModelConfig:
    """A configuration with the RQ-VAE's ids: its levels, and the collision code."""
    own = RQVAESettings()
    return replace(config, name=f"{config.name}-rqvae", levels=own.levels + 1, codes=own.codes)


def with_rqvae_ids(at: Context) -> Context:
    """The same world, whose rows have the RQ-VAE's ids; leaf i is row i of the items, as with the others."""
    path, rows, settings = at.folder / RQVAE_IDS, at.world.rows, rqvae_settings(at.form.epochs)
    with alone(path.with_suffix(".lock")):
        if not path.is_file():
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, tokenise(rows.items.embeddings, settings, at.device).ids.astype(np.int16))
            unfinished.replace(path)
    catalogue = named(rows.catalogue, np.load(path), settings.codes)
    return replace(at, world=replace(at.world, rows=replace(rows, catalogue=catalogue)))
