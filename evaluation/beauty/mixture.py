"""How a beam's candidates are ordered: by what is generated, and by what else a row adds, as weights that add up logs.

The weights of the additions are chosen on the validation item, by Recall@10 among unseen items. The beam decides what
is a candidate; the additions only reorder.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from evaluation.beauty.accuracy import figures
from evaluation.beauty.candidates import Candidates

STEPS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0)
"""Weights that are tried, against 1 for what is generated."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights of item vectors and of counts, against 1 for codes."""

    vectors: float = 0.0
    counts: float = 0.0

    def scores(self, found: Candidates) -> Tensor:
        """[U, C]."""
        return found.codes + self.vectors * found.vectors + self.counts * found.counts


def chosen(found: Candidates, truth: Tensor, *, vectors: bool, counts: bool) -> Mixture:
    """The best mixture on validation candidates; of several as good, the first."""
    tried = itertools.product(STEPS if vectors else (0.0,), STEPS if counts else (0.0,))
    mixtures = [Mixture(*pair) for pair in tried]
    return max(mixtures, key=lambda mixture: recall(found, truth, mixture))


def recall(found: Candidates, truth: Tensor, mixture: Mixture) -> float:
    """Recall@10 among unseen items."""
    return figures(found.places(truth, mixture.scores(found), with_seen=False))["recall_at_10"]


def both_figures(found: Candidates, truth: Tensor, mixture: Mixture) -> dict[str, dict[str, float]]:
    """The columns among unseen items, and among all."""
    scores = mixture.scores(found)
    return {
        "unseen": figures(found.places(truth, scores, with_seen=False)),
        "all": figures(found.places(truth, scores, with_seen=True)),
    }
