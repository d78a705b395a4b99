"""Best and worst of N sessions of one request, by the reward model of the version that generated them.

IPA (paper, section 3.3.2): S_u^w = argmax r, S_u^l = argmin r over N responses of the current model. The paper does
not say how the four objectives become one reward. Here each objective is standardised over the candidates of the
request, so that all count alike whatever their scale, and the weighted sum orders them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.engine.generated import Generated
from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot
from onerec.features import HistoryArrays, history_batch
from onerec.model.batches import HistoryBatch
from onerec.model.reward import OBJECTIVES, RewardModel, Rewards, duration_feature, merge
from onerec.settings import Candidates, RewardWeights, SamplerSettings

MIN_MARGIN = 1e-3
"""Candidates closer than this, in standard deviations, are one and the same to the reward model."""
MIN_STD = 1e-5


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate: its leaves [m], log-probability at temperature 1, rewards by objective, and the scalar."""

    leaves: Tensor
    log_prob: float
    rewards: dict[str, float]
    scalar: float


@dataclass(frozen=True, slots=True)
class Extremes:
    """The best and the worst of the candidates, how many there were, and the share of different items."""

    best: Scored
    worst: Scored
    candidates: int
    unique_share: float


class PairMaker:
    """Generates and scores with one version of the model."""

    def __init__(self, engine: Engine, reward: RewardModel, settings: SamplerSettings) -> None:
        self._engine = engine
        self._reward = reward
        self._settings = settings

    @torch.inference_mode()
    def extremes(
        self,
        history: HistoryArrays,
        catalogue: CatalogueSnapshot,
        *,
        exclude: Tensor,
        allowed: Tensor | None,
        seed: int,
    ) -> Extremes | None:
        """Best and worst of N sessions for a user; None where the candidates are all alike.

        `exclude` int64 leaves and `allowed` bool [N items] are the request's constraints; `seed` makes sampling a
        function of the request.
        """
        batch = history_batch([history], catalogue, self._engine.config)
        generated = Generated(*(part.cpu() for part in self._candidates(batch, catalogue, exclude, allowed, seed)))
        whole = (generated.sessions[0] >= 0).all(1)  # [W]: where constraints leave too few items some are not
        sessions, log_probs = generated.sessions[0][whole], generated.log_probs[0][whole]
        if len(sessions) < 2:
            return None
        rewards = self._rewards(batch, catalogue, sessions)
        scalar = merged(rewards, self._settings.rewards)
        best, worst = int(scalar.argmax()), int(scalar.argmin())
        if float(scalar[best] - scalar[worst]) < MIN_MARGIN or torch.equal(sessions[best], sessions[worst]):
            return None
        chosen, rejected = (_scored(at, sessions, log_probs, rewards, scalar) for at in (best, worst))
        return Extremes(chosen, rejected, len(sessions), np.unique(sessions.numpy()).size / sessions.numel())

    def _candidates(
        self, batch: HistoryBatch, catalogue: CatalogueSnapshot, exclude: Tensor, allowed: Tensor | None, seed: int
    ) -> Generated:
        count = self._settings.candidates
        if self._settings.method is Candidates.BEAM:
            return self._engine.generate(batch, catalogue, beam_width=count, exclude=[exclude], allowed=allowed)
        return self._engine.sample(
            batch,
            catalogue,
            count,
            temperature=self._settings.temperature,
            exclude=[exclude],
            allowed=allowed,
            generator=torch.Generator(self._engine.device).manual_seed(seed),
        )

    def _rewards(self, batch: HistoryBatch, catalogue: CatalogueSnapshot, sessions: Tensor) -> Rewards:
        """Probabilities [W] of each objective, on CPU."""
        rows, device = sessions.numpy(), self._engine.device
        codes = torch.from_numpy(catalogue.codes_of(rows)).to(device)  # [W, m, L]
        duration = duration_feature(torch.from_numpy(catalogue.durations_of(rows)).to(device))  # [W, m]
        mask = torch.ones(rows.shape, dtype=torch.bool, device=device)
        logits = self._reward.score_candidates(batch.to(device), codes, duration, mask)
        return Rewards(*(each.cpu() for each in logits.probabilities()))


def merged(rewards: Rewards, weights: RewardWeights) -> Tensor:
    """Scalar rewards [W]: each objective less its mean over the candidates, in standard deviations, weighted, summed.

    An objective in which the candidates do not differ counts nothing.
    """
    mean = Rewards(*(values.mean() for values in rewards))
    std = Rewards(*(_spread(values) for values in rewards))
    return merge(rewards, mean, std, (weights.swt, weights.vtr, weights.wtr, weights.ltr))


def _spread(values: Tensor) -> Tensor:
    """Standard deviation; infinite where it is rounding only, so that nothing is divided by next to nothing."""
    std = values.std(correction=0)
    return torch.where(std < MIN_STD, torch.inf, std)


def _scored(at: int, sessions: Tensor, log_probs: Tensor, rewards: Rewards, scalar: Tensor) -> Scored:
    by_objective = {name: float(values[at]) for name, values in zip(OBJECTIVES, rewards, strict=True)}
    return Scored(sessions[at], float(log_probs[at]), by_objective, float(scalar[at]))
