"""What a codebook is worth: use and balance of its codes, collisions, what it loses, and whether it means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tokenizer.codebook import Codebook
from stream.tokenizer.fit import Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """One level; shares are of 1. A prefix is the codes up to and with this level."""

    level: int
    codes_used: float
    entropy: float  # of the codes' frequencies, over ln K: 1 is perfectly balanced
    largest: int  # items of the most frequent code
    smallest: int
    prefixes: int  # different ones
    sharing_before: int  # items whose prefix another item has, before the collision policy
    sharing_after: int  # and after
    error: float  # variance of the embeddings that this and the levels above leave unexplained
    same_tag: float | None  # of the pairs of items with one prefix, those with the same first tag
    sweeps: int
    unsettled: int  # items that the last sweep of the k-means still moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A fit as a whole. `moved_items` were given another id than they wanted: by the first level that changed."""

    version: int
    items: int
    skipped_items: int
    width: int
    levels: int
    codes: int
    stored: str
    moved_items: int
    moved_by_level: tuple[int, ...]
    error_before: float
    error_after: float
    by_level: tuple[LevelReport, ...]
    fit_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def describe(
    codebook: Codebook,
    made: Fit,
    embeddings: NDArray[np.float32],
    first_tags: Sequence[str],
    *,
    fit_s: float,
    skipped: int,
) -> Report:
    """Measure a fit on the items that it was made of: embeddings [N, d] and first tags, "" for none, in its order."""
    tag_of_n = np.unique(np.asarray(first_tags), return_inverse=True)[1] if any(first_tags) else None
    errors_before, errors_after = (_errors(embeddings, made.centroids, codes) for codes in (made.wanted, made.codes))
    departed = made.wanted != made.codes
    first_change = np.where(departed.any(axis=1), departed.argmax(axis=1), codebook.levels)
    return Report(
        version=codebook.version,
        items=len(embeddings),
        skipped_items=skipped,
        width=codebook.width,
        levels=codebook.levels,
        codes=codebook.size,
        stored=str(codebook.settings.get("stored")),
        moved_items=int(departed.any(axis=1).sum()),
        moved_by_level=tuple(int((first_change == level).sum()) for level in range(codebook.levels)),
        error_before=errors_before[-1],
        error_after=errors_after[-1],
        by_level=tuple(_level(level, codebook.size, made, errors_after, tag_of_n) for level in range(codebook.levels)),
        fit_s=round(fit_s, 2),
    )


def _level(level: int, size: int, made: Fit, errors: list[float], tag_of_n: NDArray[np.int64] | None) -> LevelReport:
    counts_k = np.bincount(made.codes[:, level], minlength=size)
    shares = counts_k[counts_k > 0] / len(made.codes)
    prefix_n = _prefixes(made.codes[:, : level + 1])
    return LevelReport(
        level=level + 1,
        codes_used=float((counts_k > 0).mean()),
        entropy=float(-(shares * np.log(shares)).sum() / max(np.log(size), 1e-9)),
        largest=int(counts_k.max()),
        smallest=int(counts_k.min()),
        prefixes=int(prefix_n.max()) + 1,
        sharing_before=_sharing(_prefixes(made.wanted[:, : level + 1])),
        sharing_after=_sharing(prefix_n),
        error=errors[level],
        same_tag=None if tag_of_n is None else _same_tag(prefix_n, tag_of_n),
        sweeps=made.sweeps[level],
        unsettled=made.moved[level],
    )


def _errors(
    embeddings: NDArray[np.float32], centroids_lkd: NDArray[np.float32], codes: NDArray[np.int32]
) -> list[float]:
    """By level the share of the variance that the codes up to it leave."""
    variance = float(np.square(embeddings - embeddings.mean(axis=0)).sum()) or 1.0
    residuals = embeddings.copy()
    shares = []
    for level, centroids in enumerate(centroids_lkd):
        residuals -= centroids[codes[:, level]]
        shares.append(float(np.square(residuals).sum()) / variance)
    return shares


def _prefixes(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """A dense number for each different row, [N]."""
    numbers: NDArray[np.int64] = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return numbers


def _sharing(prefix_n: NDArray[np.int64]) -> int:
    counts = np.bincount(prefix_n)
    return int(counts[counts > 1].sum())


def _same_tag(prefix_n: NDArray[np.int64], tag_of_n: NDArray[np.int64]) -> float:
    """Over all pairs of different items with one prefix, the share with one tag; 0 where there is no such pair."""
    both = np.bincount(np.unique(np.stack([prefix_n, tag_of_n]), axis=1, return_inverse=True)[1].reshape(-1))
    together = np.bincount(prefix_n)
    pairs = int((together * (together - 1)).sum())
    return float((both * (both - 1)).sum() / pairs) if pairs else 0.0
