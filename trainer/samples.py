"""Samples of the seed: every user's history cut into sessions, each with the events before it as its history.

Letters: E events of all users in a row, B samples of a batch, m items of a session, n items of a history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onerec.catalogue import CatalogueSnapshot
from onerec.features import BUCKET, HistoryArrays
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from onerec.settings import SeedSettings
from trainer.batches import SessionBatch, positive

Rows = NDArray[np.int64]
MIN_HISTORY = 3
"""Events before a session, at least: a session after nothing says little about what follows from what."""
POOL = 64
"""Batches that are sorted by length together, so that a batch holds histories of about one length."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Events of all users in a row, and the sessions cut from them as places in that row."""

    leaves: NDArray[np.int64]  # [E]
    labels: NDArray[np.int64]  # [E]
    first: Rows  # [S] first event of the history
    begin: Rows  # [S] first event of the session
    end: Rows  # [S] after its last event
    age: Rows  # [S] whole sessions of the same user that have room after it
    positives: Rows  # [S] events of the session that the next-token loss covers

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def lengths(self) -> Rows:
        """Events of the histories, [S]."""
        return self.begin - self.first


def cut(
    histories: Sequence[HistoryArrays], catalogue: CatalogueSnapshot, config: ModelConfig, stride: int | None = None
) -> Samples:
    """Sessions of m consecutive known events, counted from each user's newest event backwards.

    They begin `stride` events apart: m by default, which is without overlap. With fewer an event is in several.
    """
    sizes = np.array([len(history.items) for history in histories], dtype=np.int64)
    empty = np.empty(0, np.int64)
    leaves = catalogue.leaves(np.concatenate([empty, *(history.items for history in histories)]))
    labels = np.concatenate([empty, *(history.labels for history in histories)]).astype(np.int64)
    user = np.repeat(np.arange(len(histories)), sizes)[leaves >= 0]
    leaves, labels = leaves[leaves >= 0], labels[leaves >= 0]
    stops = np.cumsum(np.bincount(user, minlength=len(histories)))
    starts = np.concatenate([empty, stops[:-1]]) if len(stops) == 0 else np.concatenate([[0], stops[:-1]])
    return _sessions(leaves, labels, (starts, stops), config, stride or config.session_items)


def _sessions(
    leaves: NDArray[np.int64],
    labels: NDArray[np.int64],
    users: tuple[NDArray[np.int64], NDArray[np.int64]],
    config: ModelConfig,
    stride: int,
) -> Samples:
    """Of events in a row, which those of `users` begin and stop in."""
    m, (starts, stops) = config.session_items, users
    counts = np.maximum(0, (stops - starts - MIN_HISTORY - m) // stride + 1)
    user = np.repeat(np.arange(len(starts)), counts)
    back = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0 is the newest
    end = stops[user] - stride * back
    begin = end - m
    covered = np.concatenate([[0], np.cumsum(positive(labels))])
    return Samples(
        leaves=leaves,
        labels=labels,
        first=np.maximum(starts[user], begin - config.history_items),
        begin=begin,
        end=end,
        age=back * stride // m,
        positives=covered[end] - covered[begin],
    )


class Source:
    """Rows of `Samples` without end, in random order, like lengths together, newer sessions more often.

    Sessions are pooled by their age, counted in sessions of the same user: a batch is of one age, and an age is
    half as likely as one `half_life` newer. The half-life shrinks over the budget, so that the model ends on what
    is nearest to the stream.
    """

    def __init__(self, samples: Samples, settings: SeedSettings, seed: int) -> None:
        """Raises ValueError where no session has a positive."""
        useful = np.flatnonzero(samples.positives > 0)
        if not len(useful):
            raise ValueError("no session has a positive")
        ages, lengths = samples.age[useful], samples.lengths
        pools = [useful[ages == age] for age in np.unique(ages)]
        self._random = np.random.default_rng(seed)
        self._pools = [_endless(pool, lengths, settings.batch, self._random) for pool in pools]
        self._sizes = np.array([len(pool) for pool in pools], dtype=np.float64)
        self._rewards = _endless(np.arange(len(samples)), lengths, settings.batch, self._random)
        self._half_lives = settings.half_life, settings.final_half_life

    def next_token(self, share: float) -> Rows:
        """A batch of sessions with a positive, at this share of the budget."""
        first, last = self._half_lives
        half_life = first + (last - first) * share
        weights = self._sizes * 0.5 ** (np.arange(len(self._pools)) / half_life)
        return next(self._pools[self._random.choice(len(self._pools), p=weights / weights.sum())])

    def reward(self) -> Rows:
        """A batch of all sessions: the reward model has to know those without a positive too."""
        return next(self._rewards)


def _endless(rows: Rows, lengths: Rows, size: int, random: np.random.Generator) -> Iterator[Rows]:
    """Batches of `size` of `rows`: all of them once an epoch, those of about one length together.

    Only the last batch of an epoch may be smaller: every further size would cost the model new kernels.
    """
    while True:
        order = random.permutation(rows)
        for first in range(0, len(order), POOL * size):
            pool = order[first : first + POOL * size]
            ordered = pool[np.argsort(lengths[pool], kind="stable")]
            starts = np.arange(0, len(ordered), size)
            for start in random.permutation(starts):
                yield ordered[start : start + size]


def sample_batch(
    samples: Samples, rows: NDArray[np.int64], catalogue: CatalogueSnapshot, config: ModelConfig
) -> SessionBatch:
    """The samples at `rows` as tensors, padded to the longest history."""
    lengths = samples.lengths[rows]
    width = min(-(-int(lengths.max()) // BUCKET) * BUCKET, config.history_items)
    steps = np.arange(width)
    mask = steps < lengths[:, None]  # [B, n]
    events = np.where(mask, samples.first[rows][:, None] + steps, 0)
    codes = catalogue.codes_of(samples.leaves[events])  # [B, n, L]
    history = HistoryBatch(
        torch.from_numpy(np.where(mask[:, :, None], codes, 0)),
        torch.from_numpy(np.where(mask, samples.labels[events], 0)),
        torch.from_numpy(mask),
    )
    session = samples.begin[rows][:, None] + np.arange(config.session_items)  # [B, m]
    leaves, labels = samples.leaves[session], samples.labels[session]
    return SessionBatch(
        history=history,
        leaves=torch.from_numpy(leaves),
        codes=torch.from_numpy(catalogue.codes_of(leaves)),
        labels=torch.from_numpy(labels),
        weight=torch.from_numpy(positive(labels).astype(np.float32)),
        durations_ms=torch.from_numpy(catalogue.durations_of(leaves)),
        watch_ms=torch.zeros(len(rows), dtype=torch.int64),
    )
