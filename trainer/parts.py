"""A step's batch in parts, one for each rank: part k of P has the records k, k + P, k + 2P of each kind.

A part's loss is a mean over what is in it; times its share of the whole it adds up, over the parts, to the mean over
the whole batch. Each part draws its dropout from a seed of its own. So what a step does depends on the number of
parts and not on the processes that compute them: one process takes them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch

from onerec.catalogue import CatalogueSnapshot
from trainer.admission import Admitted
from trainer.batches import PairBatch, SessionBatch, pair_batch, session_batch
from trainer.placement import moved
from trainer.state import TrainState, step_seed

Batch = TypeVar("Batch", PairBatch, SessionBatch)


@dataclass(frozen=True, slots=True)
class Weighted(Generic[Batch]):
    """A batch and its share of the step's loss. Without one of its own, a part computes another's for nothing.

    For all ranks have to run the same blocks; its share is 0 then.
    """

    batch: Batch
    share: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank computes in a step. An objective that a part has, all have."""

    seed: int = 0
    """Of its dropout."""
    pairs: Weighted[PairBatch] | None = None
    sessions: Weighted[SessionBatch] | None = None
    """For the next-token loss."""
    rated: Weighted[SessionBatch] | None = None
    """For the reward model."""

    def to(self, device: torch.device) -> Part:
        """Copy to a device; itself on CPU."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            pairs=self.pairs and Weighted(moved(self.pairs.batch, device), self.pairs.share),
            sessions=self.sessions and Weighted(moved(self.sessions.batch, device), self.sessions.share),
            rated=self.rated and Weighted(moved(self.rated.batch, device), self.rated.share),
        )

    def for_nothing(self) -> Part:
        """The same work, that adds nothing to the step."""
        return replace(
            self,
            pairs=self.pairs and Weighted(self.pairs.batch, 0.0),
            sessions=self.sessions and Weighted(self.sessions.batch, 0.0),
            rated=self.rated and Weighted(self.rated.batch, 0.0),
        )

    @property
    def balances(self) -> bool:
        """Whether its rows count for the experts' balance: those of the last forward, of a batch of its own."""
        last = self.sessions or self.pairs
        return last is not None and last.share > 0.0


def divide(state: TrainState, admitted: Admitted, catalogue: CatalogueSnapshot, seed: int) -> list[Part]:
    """Cut what a step learns from into `state.parts` parts."""
    count, config = state.parts, state.config
    pairs = each_part(admitted.pairs, count, lambda mine: pair_batch(mine, catalogue, config))
    rows = each_part(admitted.rows, count, lambda mine: session_batch(mine, catalogue, config, state.settings.train_on))
    per_pair = weighted(pairs, [float(len(b.chosen)) if b else 0.0 for b in pairs])
    per_token = weighted(rows, [float(b.weight.sum()) if b else 0.0 for b in rows])
    per_row = weighted(rows, [float(len(b.leaves)) if b else 0.0 for b in rows])
    seeds = [seed, *(step_seed(seed, place) for place in range(1, count))]
    return [Part(*each) for each in zip(seeds, per_pair, per_token, per_row, strict=True)]


def each_part(records: Any, count: int, batch: Callable[[Any], Batch]) -> list[Batch | None]:
    """One batch a part; None for a part without a record."""
    return [batch(records[place::count]) if len(records) > place else None for place in range(count)]


def weighted(batches: Sequence[Batch | None], weights: Sequence[float]) -> list[Weighted[Batch] | None]:
    """Each with its share; the first that weighs something stands in for those that weigh nothing."""
    total = sum(weights)
    heavy = next((batch for batch, weight in zip(batches, weights, strict=True) if batch and weight), None)
    if heavy is None:
        return [None] * len(batches)
    return [
        Weighted(batch, weight / total) if batch and weight else Weighted(heavy, 0.0)
        for batch, weight in zip(batches, weights, strict=True)
    ]
