"""Semantic ids of items, each the id of one item: quantising, and what happens when two items want one id.

The paper does not say how items that share all their codes are told apart. Here semantic ids are unique:

1. Who has an id keeps it. Among the items that a codebook is fitted on, the order in which they were published
   decides (publish the popular first); an item that appears later yields to all of them.
2. A colliding item takes the nearest free last code under the codes before it.
3. Where those are all taken it takes the next nearest code of the level above, and the nearest free one below
   it; where that level is full, of the level above that, up to the first.

"Nearest" is by the residual at that level. Ids are never taken away: for one codebook an item's id is for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Codes = NDArray[np.int32]
SemanticId = tuple[int, ...]

BLOCK_BYTES = 256 * 1024 * 1024  # distances held at once


class CatalogueFullError(ValueError):
    """All K^L semantic ids are taken."""


def nearest(points: Floats, centroids: Floats) -> Codes:
    """The nearest centroid of each point, int32 [N]; the lower one of two equally near. points [N, d], [K, d]."""
    codes = np.empty(len(points), np.int32)
    squares_k = np.einsum("kd,kd->k", centroids, centroids)
    rows = max(1, BLOCK_BYTES // (len(centroids) * points.itemsize))
    for first in range(0, len(points), rows):
        block = points[first : first + rows]
        codes[first : first + rows] = (squares_k - 2.0 * block @ centroids.T).argmin(axis=1)
    return codes


def quantise(embeddings: Floats, centroids_lkd: Floats) -> Codes:
    """Codes int32 [N, L] by argmin on the residuals (paper, section 3.1): s_l = argmin_k |r_l - c_lk|."""
    residuals = embeddings.copy()
    codes = np.empty((len(embeddings), len(centroids_lkd)), np.int32)
    for level, centroids in enumerate(centroids_lkd):
        codes[:, level] = nearest(residuals, centroids)
        residuals -= centroids[codes[:, level]]
    return codes


class SemanticIds:
    """Which semantic ids are taken, and by whom."""

    def __init__(self, centroids_lkd: Floats) -> None:
        self._centroids = centroids_lkd
        self.levels, self.codes = int(centroids_lkd.shape[0]), int(centroids_lkd.shape[1])
        self._owner: dict[SemanticId, int] = {}
        self._taken_below: Counter[SemanticId] = Counter()
        """How many ids that begin with this prefix are taken."""

    def __len__(self) -> int:
        return len(self._owner)

    def claim(self, item_id: int, wanted: SemanticId) -> bool:
        """Take exactly this id; False, and nothing changes, where another item has it."""
        owner = self._owner.setdefault(wanted, item_id)
        if owner != item_id:
            return False
        if self._taken_below[wanted] == 0:
            for level in range(self.levels + 1):
                self._taken_below[wanted[:level]] += 1
        return True

    def place(self, item_id: int, embedding: Floats, wanted: Sequence[int]) -> SemanticId:
        """Take the wanted id [L] or, by the policy above, the one that stands in for it.

        embedding [d]. Raises CatalogueFullError.
        """
        found = tuple(int(code) for code in wanted)
        if not self.claim(item_id, found):
            found = self._stand_in(embedding, found)
            self.claim(item_id, found)
        return found

    def _stand_in(self, embedding: Floats, wanted: SemanticId) -> SemanticId:
        if self._full(()):
            raise CatalogueFullError(f"all {self.codes}^{self.levels} semantic ids are taken")
        found: SemanticId = ()
        residual = embedding
        for level, centroids in enumerate(self._centroids):
            gaps_k = np.square(residual - centroids).sum(axis=1)
            if found == wanted[:level]:
                gaps_k[wanted[level]] = -1.0  # the wanted code comes first, whatever its distance
            code = next(int(k) for k in np.argsort(gaps_k, kind="stable") if not self._full((*found, int(k))))
            found = (*found, code)
            residual = residual - centroids[code]
        return found

    def _full(self, prefix: SemanticId) -> bool:
        room: int = self.codes ** (self.levels - len(prefix))
        return self._taken_below[prefix] >= room
