"""Item embeddings for a log that brings none: made of what is known before the log begins. numpy only.

Three parts side by side, then the `width` directions in which they vary most:

- Who is seen beside whom: positive pointwise mutual information of items within `window` steps of one user's
  sequence, weighted by 1 / distance, factorised by a subspace iteration; rows of length 1 times the root of the
  spectrum, shrunk by n / (n + 20) for an item seen n times.
- For items that few have seen, what their music, author and tags suggest: the mean of the vectors of items with
  the same, from the narrowest group that knows something; its weight falls as 2 / (n + 2).
- The tags themselves and the logarithm of the length, so that an item that nobody has seen has a place too.

Weights and window were chosen on KuaiRand's first days by how well a user's next long view ranks among all
items from the mean of the last 20 embeddings, after quantising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

ITERATIONS = 4  # of the subspace iteration; more did not change neighbours
OVERSAMPLED = 10  # further directions that the iteration carries for accuracy
TINY = np.float32(1e-9)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is known of N items besides who saw them, one entry an item; -1 where an author or music is unknown."""

    tags: Sequence[Sequence[str]]
    authors: Longs
    durations_ms: Longs
    music: Longs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How embeddings are made; the defaults are those measured on KuaiRand."""

    width: int = 64
    window: int = 50
    shrinkage: float = 20.0  # events at which an item's own vector has half its length
    cold_events: float = 2.0  # events at which the groups' vector has half its weight
    tag_weight: float = 0.5
    duration_weight: float = 0.2
    vocabulary: int = 16_384  # most-seen items whose co-occurrence is counted: 1 GB of float32
    seed: int = 0


def item_embeddings(items: Longs, starts: Longs, attributes: Attributes, recipe: Recipe | None = None) -> Floats:
    """Embeddings [N, width] of the N items that `attributes` describes; the same input gives the same output.

    items int64 [T] holds rows of `attributes`, user after user, oldest first; user u has
    items[starts[u]:starts[u + 1]]. Raises ValueError for a row outside of 0..N-1.
    """
    recipe = recipe or Recipe()
    count = len(attributes.tags)
    if len(items) and not 0 <= int(items.min()) <= int(items.max()) < count:
        raise ValueError(f"sequences name items outside of the {count} that are described")
    seen_N = np.bincount(items, minlength=count).astype(np.float32)
    own_Nd = _unit(co_occurrence_vectors(items, starts, count, recipe))
    trust_N1 = (seen_N / (seen_N + recipe.shrinkage))[:, None]
    cold_N1 = (recipe.cold_events / (seen_N + recipe.cold_events))[:, None]
    tags_NT, tag_pairs = _tag_matrix(attributes.tags)
    parts = (
        own_Nd * trust_N1 + cold_N1 * _group_vectors(own_Nd * trust_N1, trust_N1, tag_pairs, attributes),
        recipe.tag_weight * _unit(tags_NT),
        recipe.duration_weight * _standardised(np.log1p(np.maximum(attributes.durations_ms, 0) / 1000.0)),
    )
    return _principal(np.concatenate(parts, axis=1), recipe.width)


def co_occurrence_vectors(items: Longs, starts: Longs, count: int, recipe: Recipe) -> Floats:
    """Factors [N, width] of the items' PPMI; zero for items that nobody saw or that are beyond the vocabulary."""
    seen_N = np.bincount(items, minlength=count)
    words = np.argsort(-seen_N, kind="stable")[: min(recipe.vocabulary, count)]
    words = np.sort(words[seen_N[words] > 0])
    vectors = np.zeros((count, recipe.width), np.float32)
    if len(words) < 2:
        return vectors
    word_of_N = np.full(count, -1, np.int64)
    word_of_N[words] = np.arange(len(words))
    ppmi_VV = _ppmi(_pairs(word_of_N[items], starts, len(words), recipe.window))
    rank = min(recipe.width, len(words))
    vectors[words, :rank] = _factors(ppmi_VV, rank, recipe.seed)
    return vectors


def _pairs(items: Longs, starts: Longs, count: int, window: int) -> Floats:
    """Symmetric co-occurrence [V, V]: the sum of 1 / distance over pairs within the window; items of -1 are none."""
    user = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    counts = np.zeros(count * count, np.float32)
    for distance in range(1, window + 1):
        left, right = items[:-distance], items[distance:]
        both = (user[distance:] == user[:-distance]) & (left >= 0) & (right >= 0) & (left != right)
        if not both.any() and distance >= np.diff(starts).max(initial=0):
            break
        np.add.at(counts, left[both] * count + right[both], np.float32(1.0 / distance))
    square = counts.reshape(count, count)
    return square + square.T


def _ppmi(counts_VV: Floats) -> Floats:
    """max(0, ln(p(a, b) / p(a) p(b))), in place."""
    row_V = np.log(np.maximum(counts_VV.sum(axis=1), TINY))
    total = np.log(np.maximum(counts_VV.sum(dtype=np.float64), TINY)).astype(np.float32)
    with np.errstate(divide="ignore"):
        np.log(counts_VV, out=counts_VV)
    counts_VV -= (row_V - total)[:, None]
    counts_VV -= row_V[None, :]
    return np.maximum(counts_VV, 0.0, out=counts_VV)


def _factors(symmetric_VV: Floats, rank: int, seed: int) -> Floats:
    """[V, rank]: eigenvectors of the largest eigenvalues, times the roots of these."""
    size = len(symmetric_VV)
    basis_VR = np.random.default_rng(seed).standard_normal((size, min(size, rank + OVERSAMPLED)), dtype=np.float32)
    for _ in range(ITERATIONS):
        basis_VR, _ = np.linalg.qr(symmetric_VV @ basis_VR)
    values_R, vectors_RR = np.linalg.eigh(basis_VR.T @ (symmetric_VV @ basis_VR))
    largest = np.argsort(-np.abs(values_R), kind="stable")[:rank]
    factors: Floats = (basis_VR @ vectors_RR[:, largest]) * np.sqrt(np.abs(values_R[largest]))
    return factors


def _tag_matrix(tags: Sequence[Sequence[str]]) -> tuple[Floats, tuple[Longs, Longs]]:
    """Tags as 0 and 1, [N, T], and as pairs of rows and columns; tags in alphabetical order."""
    column_of = {tag: column for column, tag in enumerate(sorted({tag for row in tags for tag in row}))}
    rows = np.repeat(np.arange(len(tags)), [len(row) for row in tags])
    columns = np.array([column_of[tag] for row in tags for tag in row], np.int64)
    matrix = np.zeros((len(tags), len(column_of)), np.float32)
    matrix[rows, columns] = 1.0
    return matrix, (rows, columns)


def _group_vectors(weighted_Nd: Floats, weight_N1: Floats, tag_pairs: tuple[Longs, Longs], of: Attributes) -> Floats:
    """[N, d]: the mean vector of an item's tags, moved towards that of its author, then towards that of its music."""
    prior_Nd = np.zeros_like(weighted_Nd)
    groups = [tag_pairs]
    for single in (of.authors, of.music):
        if single is not None:
            rows = np.flatnonzero(single >= 0)
            groups.append((rows, np.unique(single[rows], return_inverse=True)[1]))
    for rows, group_of_row in groups:
        prior_Nd = _moved_to_groups(weighted_Nd, weight_N1, rows, group_of_row, prior_Nd)
    return prior_Nd


def _moved_to_groups(
    weighted_Nd: Floats, weight_N1: Floats, rows: Longs, groups: Longs, prior_Nd: Floats, strength: float = 0.3
) -> Floats:
    """Means of the other items in an item's groups; the prior counts as `strength` trusted items more."""
    size = int(groups.max(initial=-1)) + 1
    sums_Gd = np.zeros((size, weighted_Nd.shape[1]), np.float32)
    np.add.at(sums_Gd, groups, weighted_Nd[rows])
    weights_G = np.bincount(groups, weight_N1[rows, 0], size).astype(np.float32)
    others_Nd = np.zeros_like(weighted_Nd)
    np.add.at(others_Nd, rows, sums_Gd[groups] - weighted_Nd[rows])
    others_N = np.zeros(len(weighted_Nd), np.float32)
    np.add.at(others_N, rows, weights_G[groups] - weight_N1[rows, 0])
    others_N = np.maximum(others_N, 0.0)  # a difference of rounded sums
    moved: Floats = (others_Nd + strength * prior_Nd) / (others_N + np.float32(strength))[:, None]
    return moved


def _principal(features_NF: Floats, width: int) -> Floats:
    """Centred features turned to their principal axes: [N, width], zero columns where F < width."""
    centred_NF = features_NF - features_NF.mean(axis=0)
    _, axes_FF = np.linalg.eigh(centred_NF.T @ centred_NF)
    axes_FW = axes_FF[:, ::-1][:, :width]
    strongest_W = axes_FW[np.abs(axes_FW).argmax(axis=0), np.arange(axes_FW.shape[1])]
    turned = np.zeros((len(centred_NF), width), np.float32)
    turned[:, : axes_FW.shape[1]] = centred_NF @ (axes_FW * np.sign(strongest_W))  # an axis has no sign of its own
    return turned


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    return unit


def _standardised(values_N: NDArray[np.float64]) -> Floats:
    spread = float(values_N.std()) or 1.0
    return ((values_N - values_N.mean()) / spread).astype(np.float32)[:, None]
