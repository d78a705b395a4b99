"""How beams go on: the best of all continuations, or one drawn at random for each."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Chosen(NamedTuple):
    """The continuations that live on."""

    parents: Tensor  # int64 [B, W]: which of the request's beams
    ranks: Tensor  # int64 [B, W]: which of its children
    scores: Tensor  # float32 [B, W]: log-probability up to here


class Selection(Protocol):
    """Picks the next beams."""

    def choose(self, scores: Tensor, log_probs: Tensor, width: int) -> Chosen:
        """At most `width` continuations of each request.

        `scores` [B, V] are the log-probabilities of the beams so far, -inf for none; `log_probs` [B, V, C] those of
        their children, -inf where closed.
        """


class BestOfAll:
    """Beam search: the `width` most probable continuations of each request, in no order."""

    def choose(self, scores: Tensor, log_probs: Tensor, width: int) -> Chosen:
        """One top-k over all beams' children; fewer than `width` where there are fewer."""
        batch, _, branch = log_probs.shape
        together = (log_probs + scores.unsqueeze(-1)).view(batch, -1)
        best = torch.topk(together, min(width, together.shape[1]), dim=1, sorted=False)
        return Chosen(best.indices // branch, best.indices % branch, best.values)


class OneOfEach:
    """Ancestral sampling: each beam draws one child at `temperature`; the first step draws `width` from the root.

    Closed children are never drawn, their probability goes to their open siblings. Scores stay the model's own,
    at temperature 1.
    """

    def __init__(self, temperature: float, generator: torch.Generator | None) -> None:
        if temperature <= 0:
            raise ValueError(f"The temperature must be above 0, not {temperature}.")
        self._temperature, self._generator = temperature, generator

    def choose(self, scores: Tensor, log_probs: Tensor, width: int) -> Chosen:
        """Draw one child for each beam; from a single beam, `width` children with replacement."""
        batch, beams, branch = log_probs.shape
        draws = width if beams == 1 else 1
        flat = log_probs.view(batch * beams, branch)
        dead = flat.amax(1) == -torch.inf  # nothing is open: any draw will do, its score is -inf
        weights = torch.softmax(flat.masked_fill(dead.unsqueeze(1), 0.0) / self._temperature, dim=1)
        ranks = torch.multinomial(weights, draws, replacement=draws > 1, generator=self._generator)
        ranks = ranks.view(batch, -1)
        parents = torch.arange(beams, device=ranks.device).expand(batch, -1)
        if beams == 1:
            parents = parents.expand(-1, width)
        drawn = log_probs[torch.arange(batch, device=ranks.device).unsqueeze(1), parents, ranks]
        return Chosen(parents, ranks, scores.gather(1, parents) + drawn)
