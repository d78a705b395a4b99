"""Items and codebooks for the tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.records import Item
from stream.tokenizer.codebook import Codebook
from stream.tokenizer.fit import FitSettings, fit

WIDTH = 4


def embeddings(count: int, seed: int = 0, width: int = WIDTH) -> NDArray[np.float32]:
    """Points in a few clumps, so that items collide."""
    rng = np.random.default_rng(seed)
    clumps = np.random.default_rng(99).standard_normal((5, width))
    return (clumps[rng.integers(0, 5, count)] + 0.05 * rng.standard_normal((count, width))).astype(np.float32)


def item(item_id: int, embedding: NDArray[np.float32], duration_ms: int = 1000, tags: tuple[str, ...] = ("a",)) -> Item:
    return Item(
        item_id=item_id,
        embedding=embedding.astype("<f4").tobytes(),
        duration_ms=duration_ms,
        author_id=1,
        tags=tags,
        created_ms=5,
    )


def codebook(fitted: int = 60, *, version: int = 1, levels: int = 3, codes: int = 8) -> Codebook:
    """Fitted on items 0..fitted-1 of `embeddings`."""
    settings = FitSettings(levels=levels, codes=codes)
    made = fit(embeddings(fitted), settings)
    return Codebook(
        version=version,
        centroids=made.centroids,
        item_ids=np.arange(fitted, dtype=np.int64),
        codes=made.codes,
        settings=settings.as_dict(),
    )
