"""Item embeddings: what the text says, and who is reviewed beside whom in the training sequences.

By text alone ids are poor here, by co-occurrence alone items that few have reviewed have none worth the name; a
prototype did best with both, the text at two fifths of the weight (validation Recall@10 .055 by text, .070 by
co-occurrence, .076 by both).
"""

from __future__ import annotations

import numpy as np

from evaluation.beauty.dataset import Beauty, Floats
from stream.tokenizer.embeddings import Recipe, co_occurrence_vectors

WIDTH = 64
"""Of either part."""
TEXT_WEIGHT = 0.4
SHRINKAGE = 3.0
"""Reviews at which an item's own vector has half its length."""
TINY = np.float32(1e-9)


def text_embeddings(beauty: Beauty) -> Floats:
    """[N, WIDTH]: the directions in which the texts differ most, rows of length 1."""
    centred = beauty.texts - beauty.texts.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return _unit(centred @ axes[:, ::-1][:, :WIDTH])


def count_embeddings(beauty: Beauty, seed: int, window: int = 5) -> Floats:
    """[N, WIDTH]: factors of the items' pointwise mutual information, shorter where an item is rare."""
    starts, items = beauty.training()
    vectors = co_occurrence_vectors(items, starts, beauty.item_count, Recipe(width=WIDTH, window=window, seed=seed))
    seen = np.bincount(items, minlength=beauty.item_count).astype(np.float32)
    shorter: Floats = _unit(vectors) * (seen / (seen + SHRINKAGE))[:, None]
    return shorter


def fused_embeddings(beauty: Beauty, seed: int = 0, *, window: int = 5, text_weight: float = TEXT_WEIGHT) -> Floats:
    """[N, 2 * WIDTH]: both side by side."""
    return np.concatenate([count_embeddings(beauty, seed, window), text_weight * text_embeddings(beauty)], axis=1)


def _unit(rows: Floats) -> Floats:
    unit: Floats = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)).astype(np.float32)
    return unit
