"""Balanced k-means: Algorithm 1 of the paper (section 3.1), exactly, without its sorts.

The algorithm, for one level with residuals V and K clusters: start from K random points; then sweep until the
assignment stops changing: all points are free, and for k = 1..K in this order cluster k takes the w = |V| / K
free points nearest to its centroid, moves its centroid to their mean at once, and removes them from the free.
The order of k stays the same in every sweep: reshuffled, it never settles.

What the paper leaves open: where K does not divide |V|, the first |V| mod K clusters take one point more;
among points equally near, the one with the lower row is taken; and sweeps are capped (`max_sweeps`), because
the last one in a hundred points may move for ever.

Why this is fast and still the same algorithm:

- Within a sweep centroid k is read once, to rank the free points for cluster k, and that comes before its own
  update; no later k reads it. So every distance of a sweep is taken to the centroids with which the sweep
  began, and the distances for a block of clusters come from one matrix product.
- Cluster k needs the w nearest as a set, not in order: a partial selection (linear in the free points) does.
- Points that are already taken need no distance: each block is computed for the free points only, which halves
  the work, and the block bounds the memory (`BLOCK_BYTES`) whatever |V| and K are.

Measured on one core: 7,583 x 64 with K = 128, 50 sweeps in 0.5 s; 200,000 x 64 with K = 1024, 0.8 s a sweep.
1,000,000 x 256 with K = 8192 was run for the first 512 clusters of a sweep: 7.5 s and 3.5 GB, points included; a
whole sweep is estimated at 60 to 80 s by that, and goes down with the cores that the matrix product gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 512 * 1024 * 1024  # distances held at once: 1M free points x 128 clusters of float32
BLOCKS = 16  # at least so many a sweep, so that the distances of points already taken are saved
SAMPLE = 4096  # points that give the first guess of a selection's bound

Points = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Clusters:
    """What one level of Algorithm 1 yields.

    centroids [K, d]; assignment int32 [N], the cluster that took each point; sweeps that were made; moved, the
    points whose cluster changed in the last sweep (0: settled).
    """

    centroids: Points
    assignment: NDArray[np.int32]
    sweeps: int
    moved: int


def capacities(points: int, clusters: int) -> NDArray[np.int64]:
    """Points that each cluster takes, int64 [K]: floor(N / K), and one more for the first N mod K."""
    sizes = np.full(clusters, points // clusters, dtype=np.int64)
    sizes[: points % clusters] += 1
    return sizes


def _nearest(scores: Points, count: int) -> NDArray[np.int64]:
    """Rows of the `count` smallest of scores [F]; the lower row first among equals. Ascending rows.

    Where few of many are wanted, a bound guessed from a sample first discards most; it is a shortcut only: a
    guess that leaves too few is not used.
    """
    if count >= len(scores):
        return np.arange(len(scores))
    if len(scores) > 4 * SAMPLE and 8 * count < len(scores):
        sample = scores[:: len(scores) // SAMPLE]
        rank = 16 + 2 * count * len(sample) // len(scores)
        near = np.flatnonzero(scores <= np.partition(sample, rank)[rank])
        if count <= len(near) < len(scores) // 2:
            return near[_nearest(scores[near], count)]
    bound = np.partition(scores, count - 1)[count - 1]
    rows = np.flatnonzero(scores <= bound)
    if len(rows) > count:  # ties on the bound: drop the last of them
        ties = np.flatnonzero(scores[rows] == bound)
        rows = np.delete(rows, ties[count - len(rows) :])
    return rows


def _sweep(points: Points, squares: Points, centroids: Points, sizes: NDArray[np.int64]) -> NDArray[np.int32]:
    """One sweep of Algorithm 1: assignment int32 [N]; updates centroids [K, d] in place.

    points [N, d], squares [N] = |x|^2. Ranks by |x|^2 - 2 x.c, which orders as the Euclidean distance to c.
    """
    clusters = len(centroids)
    assignment = np.full(len(points), -1, dtype=np.int32)
    free = np.arange(len(points))
    k = 0
    while k < clusters and len(free):
        block = min(clusters - k, max(64, clusters // BLOCKS), max(1, BLOCK_BYTES // (len(free) * points.itemsize)))
        inputs = points if len(free) == len(points) else points[free]
        scores_bf = (-2.0 * centroids[k : k + block]) @ inputs.T  # [block, free]
        scores_bf += squares[free]
        for b, scores_f in enumerate(scores_bf):
            size = int(sizes[k])
            if size:  # a cluster without capacity (K > N) keeps its centroid
                rows = _nearest(scores_f, size)
                assignment[free[rows]] = k
                centroids[k] = inputs[rows].mean(axis=0)
                scores_bf[b + 1 :, rows] = np.inf  # taken: out of reach of the later clusters of this block
            k += 1
        free = np.flatnonzero(assignment < 0)
    return assignment


def balanced_kmeans(points: Points, clusters: int, *, rng: np.random.Generator, max_sweeps: int = 50) -> Clusters:
    """Run Algorithm 1 on points [N, d] for K = `clusters`; see the module for what it does.

    Deterministic for one state of `rng`. With fewer points than clusters the centroids beyond N are copies of
    random points and take nothing. Raises ValueError where there is no point or no cluster.
    """
    if len(points) == 0 or clusters < 1:
        raise ValueError(f"balanced k-means needs points and clusters, got {len(points)} and {clusters}")
    first = rng.choice(len(points), size=clusters, replace=clusters > len(points))
    centroids = points[first].copy()
    squares = np.einsum("nd,nd->n", points, points)
    sizes = capacities(len(points), clusters)
    assignment = np.full(len(points), -1, dtype=np.int32)
    sweeps = moved = 0
    while sweeps < max_sweeps:
        sweeps += 1
        previous, assignment = assignment, _sweep(points, squares, centroids, sizes)
        moved = int(np.count_nonzero(assignment != previous))
        if moved == 0:
            break
    return Clusters(centroids=centroids, assignment=assignment, sweeps=sweeps, moved=moved)
