"""Semantic ids of the items: residual balanced K-means of the stream's tokenizer, over several kinds of embeddings.

Each set of ids is made once and kept: the same for all seeds of the models, so that the spread over seeds is that of
training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.beauty.dataset import Beauty, Floats, Longs
from evaluation.beauty.embeddings import fused_embeddings, text_embeddings
from onerec.catalogue import CatalogueSnapshot
from stream.tokenizer.fit import FitSettings, fit

LEVELS = 3


@dataclass(frozen=True, slots=True)
class View:
    """One way to make embeddings of items, and ids of these."""

    name: str
    window: int = 5
    """Of co-occurrence; 0 for none, and the text alone."""
    text_weight: float = 0.4
    seed: int = 0

    def embeddings(self, beauty: Beauty) -> Floats:
        """[N, f]."""
        if not self.window:
            return text_embeddings(beauty)
        return fused_embeddings(beauty, self.seed, window=self.window, text_weight=self.text_weight)


TEXT = View("text", window=0)
FUSED = View("fused")
VIEWS = (FUSED, View("wide", window=20, text_weight=0.6, seed=1), View("near", window=3, text_weight=0.25, seed=2))
"""Of the rows with several sets of ids."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Embeddings [N, f] and the catalogue of their ids, whose leaves are the items."""

    embeddings: Floats
    catalogue: CatalogueSnapshot


def tokens_of(beauty: Beauty, view: View, codes: int, folder: Path) -> Tokens:
    """Made, or read from the folder where they are kept."""
    path = folder / f"ids-{view.name}.npz"
    if not path.is_file():
        embeddings = view.embeddings(beauty)
        unfinished = folder / f"ids-{view.name}.part.npz"
        ids = semantic_ids(beauty, embeddings, codes, view.seed)
        np.savez(unfinished, embeddings=embeddings, codes=ids)
        unfinished.replace(path)
    with np.load(path) as kept:
        return Tokens(kept["embeddings"].astype(np.float32), catalogue_of(kept["codes"].astype(np.int64), codes))


def semantic_ids(beauty: Beauty, embeddings: Floats, codes: int, seed: int) -> Longs:
    """Ids [N, LEVELS], all different. Where two items want one, the one that more people reviewed has it."""
    _, items = beauty.training()
    order = np.argsort(-np.bincount(items, minlength=beauty.item_count), kind="stable")
    ids = np.empty((beauty.item_count, LEVELS), np.int64)
    ids[order] = fit(embeddings[order], FitSettings(levels=LEVELS, codes=codes, seed=seed)).codes
    return ids


def catalogue_of(ids: Longs, codes: int) -> CatalogueSnapshot:
    """A catalogue whose item i is leaf i."""
    count = len(ids)
    nothing, no_tags = np.zeros(count, np.int64), ()
    return CatalogueSnapshot.of(
        np.arange(count), ids, nothing, ((no_tags,), nothing), code_count=codes, offset=0, codebook_version=1
    )
