"""The sides of the K-means bench: the tokenizer's balanced K-means, and faiss's, whose clusters are of any size."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, CLUSTERS, LEVELS, SWEEPS = 64, 1024, 3, 5


def points(count: int) -> NDArray[np.float32]:
    """Points around as many centres as there are clusters, unevenly many around each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
    chosen = (CLUSTERS * rng.random(count) ** 2).astype(np.int64)
    return centres[chosen] + rng.normal(scale=0.5, size=(count, WIDTH)).astype(np.float32)


class Balanced:
    """Side: three levels of residuals, as the tokenizer fits them."""

    def __init__(self, *, count: int, threads: int, sweeps: int = SWEEPS) -> None:
        self._points, self._threads, self._sweeps = points(count), threads, sweeps

    def prepare(self) -> dict[str, Any]:
        """Load what is needed; nothing is kept from run to run."""
        from stream.tokenizer.balanced_kmeans import balanced_kmeans  # noqa: PLC0415 - faiss's side has none

        self._fit = balanced_kmeans
        return {"points": len(self._points), "sweeps": self._sweeps, "threads": self._threads}

    def repeat(self) -> dict[str, Any]:
        """All levels once; `largest` is the largest cluster's size, in mean sizes."""
        started_s = time.perf_counter()
        residuals: NDArray[Any] = self._points
        rng, largest = np.random.default_rng(0), 0.0
        for _ in range(LEVELS):
            found = self._fit(residuals, CLUSTERS, rng=rng, max_sweeps=self._sweeps)
            residuals = residuals - found.centroids[found.assignment]
            largest = max(largest, float(np.bincount(found.assignment).max()) * CLUSTERS / len(residuals))
        seconds = time.perf_counter() - started_s
        return {"seconds": seconds, "largest": largest, "error": float(np.square(residuals).sum(1).mean())}


class Faiss:
    """Peer: faiss.Kmeans for each level, all points, as many iterations."""

    def __init__(self, *, count: int, threads: int, sweeps: int = SWEEPS) -> None:
        self._points, self._threads, self._sweeps = points(count), threads, sweeps

    def prepare(self) -> dict[str, Any]:
        """Threads as ours has."""
        import faiss  # noqa: PLC0415 - the other side has none

        faiss.omp_set_num_threads(self._threads)
        self._faiss = faiss
        return {"peer": f"faiss {faiss.__version__} Kmeans", "iterations": self._sweeps, "threads": self._threads}

    def repeat(self) -> dict[str, Any]:
        """All levels once."""
        started_s = time.perf_counter()
        residuals, largest = self._points, 0.0
        for _ in range(LEVELS):
            kmeans = self._faiss.Kmeans(
                WIDTH, CLUSTERS, niter=self._sweeps, seed=0, max_points_per_centroid=len(residuals), verbose=False
            )
            kmeans.train(residuals)
            _, assignment = kmeans.index.search(residuals, 1)
            residuals = residuals - kmeans.centroids[assignment[:, 0]]
            largest = max(largest, float(np.bincount(assignment[:, 0]).max()) * CLUSTERS / len(residuals))
        seconds = time.perf_counter() - started_s
        return {"seconds": seconds, "largest": largest, "error": float(np.square(residuals).sum(1).mean())}
