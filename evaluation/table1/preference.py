"""The preference rows: OneRec goes on with next-token loss and a preference loss on pairs of its own candidates."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from evaluation.table1.generative import MIN_BEAM, seen
from evaluation.table1.judge import probabilities
from evaluation.table1.protocol import Form
from evaluation.table1.world import Side, World
from inference.engine.search import Engine
from inference.sampler.pairs import merged
from onerec.errors import CheckFailedError
from onerec.features import HistoryArrays, history_batch
from onerec.model import policy, preference
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import Memory, OneRec
from onerec.model.reward import RewardModel
from onerec.settings import RewardWeights, SeedSettings, TrainerSettings
from trainer.batches import PairBatch
from trainer.objectives import next_token_loss, preference_loss
from trainer.samples import Source, cut, sample_batch
from trainer.state import adamw

LOG = logging.getLogger(__name__)
BATCH = 64
PAIRS = 4
"""Pairs a step: about 6 % of the samples."""
REJECTED = 3
"""Sessions that S-DPO rejects at once; the other losses reject the worst."""
GROUP = 8
"""Candidates of a user that ECPO and GBPO learn from in a step, drawn from all."""
LEARNING_RATE = 5e-5
"""Constant and low: an annealed model loses hit rate where the rate is raised again."""

Loss = Literal["none", "dpo", "ipo", "cdpo", "rdpo", "cpo", "simpo", "sdpo", "ecpo", "gbpo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A row: its loss, lambda (on the mean over a step's pairs; next-token loss is the mean per token) and beta."""

    loss: Loss
    weight: float = 0.1
    beta: float = 0.1
    iterative: bool = False
    ratio: float | None = None
    """Share of the samples that bring a pair, each with the same weight; PAIRS a step where it is not given."""


RECIPES = {
    "ntp": Recipe(loss="none", weight=0.0),
    "dpo": Recipe(loss="dpo"),
    "ipo": Recipe(loss="ipo", weight=0.005),  # its squares are about 25 at first
    "cdpo": Recipe(loss="cdpo"),
    "rdpo": Recipe(loss="rdpo"),
    "cpo": Recipe(loss="cpo"),
    "simpo": Recipe(loss="simpo", beta=2.0),
    "sdpo": Recipe(loss="sdpo"),
    "ecpo": Recipe(loss="ecpo", weight=0.02),  # its gradient is A itself, DPO's at first beta / 2
    "gbpo": Recipe(loss="gbpo", weight=0.02),
    "ipa": Recipe(loss="dpo", iterative=True),
}


@dataclass(frozen=True, slots=True)
class Mined:
    """One user's candidates and the best and worst of them, with the log-probabilities of the model that made them."""

    history: HistoryArrays
    chosen: Tensor  # int64 [m]
    rejected: Tensor  # int64 [REJECTED, m], the worst first
    ref_chosen: float
    ref_rejected: Tensor  # float32 [REJECTED]
    group: Tensor  # int64 [N, m]
    ref_group: Tensor  # float32 [N]
    advantages: Tensor  # float32 [N]


def mine(model: OneRec, reward: RewardModel, world: World, form: Form, seed: int) -> list[Mined]:
    """Candidates of `preference_users` users by beam search, ordered by the training reward model.

    Users of the cases make no pairs: rewards are reported of users whose candidates nobody has aligned.
    """
    side, random = world.rows, np.random.default_rng(seed)
    others = np.setdiff1d(np.flatnonzero(np.diff(side.past.starts)), world.cases.users)
    users = random.permutation(others)[: form.preference_users].tolist()
    engine = Engine(copy.deepcopy(model), precise=True)
    found = []
    for row in users:
        history = side.history(row)
        batch = history_batch([history], side.catalogue, model.config)
        width = max(form.candidates, MIN_BEAM)
        generated = engine.generate(batch, side.catalogue, beam_width=width, exclude=seen(world, [row]))
        whole = (generated.sessions[0] >= 0).all(1)
        sessions, log_probs = generated.sessions[0][whole], generated.log_probs[0][whole]
        if len(sessions) <= REJECTED:
            continue
        scalar = merged(probabilities(reward, batch, sessions.numpy(), side.catalogue), RewardWeights())
        order = torch.argsort(scalar)
        best, worst = int(order[-1]), order[:REJECTED]
        extremes = sessions[best], sessions[worst], float(log_probs[best]), log_probs[worst].clone()
        group = sessions.clone(), log_probs.clone(), policy.advantages(scalar)
        found.append(Mined(history, *extremes, *group))
    LOG.info("mined the candidates of %d users: %d pairs", len(users), len(found))
    return found


class Aligner:
    """Makes the preference rows of one seed from one model; all but IPA use the pairs mined from it."""

    def __init__(self, model: OneRec, reward: RewardModel, world: World, form: Form, seed: int) -> None:
        self._model, self._reward, self._world, self._form, self._seed = model, reward, world, form, seed
        self._mined: list[Mined] | None = None
        side = world.rows
        self._samples = cut([side.history(row) for row in range(len(side.past))], side.catalogue, model.config)

    def aligned(self, recipe: Recipe, on_round: Callable[[OneRec], None] = lambda _: None) -> OneRec:
        """A copy of the model that has learned by the recipe; `on_round` sees it after each round, without dropout.

        Raises CheckFailedError for a loss that is not finite.
        """
        model, form = copy.deepcopy(self._model), self._form
        rounds = form.rounds if recipe.iterative else 1
        steps = np.diff(np.linspace(0, form.preference_steps, rounds + 1).astype(int)).tolist()
        optimizer = adamw(model, LEARNING_RATE, TrainerSettings())
        source = Source(self._samples, SeedSettings(batch=BATCH), self._seed)
        random = np.random.default_rng(self._seed)
        torch.manual_seed(self._seed)
        for number, count in enumerate(steps):
            pairs = self._first_pairs() if number == 0 else self._pairs(model, number)
            model.train()
            for _ in range(count):
                self._step(model, optimizer, source, _drawn(pairs, random, recipe), recipe)
            on_round(model.eval())
        return model.eval()

    def _first_pairs(self) -> list[Mined]:
        if self._mined is None:
            self._mined = self._pairs(self._model, 0)
        return self._mined

    def _pairs(self, model: OneRec, number: int) -> list[Mined]:
        return mine(model.eval(), self._reward, self._world, self._form, self._seed + number)

    def _step(
        self, model: OneRec, optimizer: torch.optim.AdamW, source: Source, pairs: list[Mined], recipe: Recipe
    ) -> None:
        side = self._world.rows
        preferred = _loss(model, pairs, side, recipe) if recipe.loss != "none" and pairs else None
        batch = sample_batch(self._samples, source.next_token(1.0), side.catalogue, model.config)
        loss = next_token_loss(model, batch, side.catalogue.trie)
        assert loss is not None, "every sample has a positive"
        if preferred is not None:
            loss = loss + recipe.weight * (1.0 if recipe.ratio is None else len(pairs) / PAIRS) * preferred
        if not bool(torch.isfinite(loss)):
            raise CheckFailedError(f"The loss of {recipe.loss} is {float(loss)}.", "Lower its weight.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()


def _drawn(pairs: list[Mined], random: np.random.Generator, recipe: Recipe) -> list[Mined]:
    count = PAIRS if recipe.ratio is None else int(random.binomial(BATCH, recipe.ratio))
    return [pairs[at] for at in random.integers(0, len(pairs), count)] if pairs else []


def _loss(model: OneRec, pairs: list[Mined], side: Side, recipe: Recipe) -> Tensor:
    history = history_batch([pair.history for pair in pairs], side.catalogue, model.config)
    chosen, rejected = torch.stack([p.chosen for p in pairs]), torch.stack([p.rejected for p in pairs])
    ref_chosen = torch.tensor([p.ref_chosen for p in pairs])
    ref_rejected = torch.stack([p.ref_rejected for p in pairs])
    if recipe.loss in ("ecpo", "gbpo"):
        return _group_loss(model, history, pairs, side, recipe)
    batch = PairBatch(history, chosen, rejected[:, 0], ref_chosen, ref_rejected[:, 0])
    if recipe.loss != "sdpo":
        settings = TrainerSettings(preference_loss=recipe.loss, preference_beta=recipe.beta)
        return preference_loss(model, batch, side.catalogue.trie, settings)[0]
    return _several_rejected(
        model, dataclasses.replace(batch, rejected=rejected, ref_rejected=ref_rejected), side, recipe
    )


def _several_rejected(model: OneRec, pairs: PairBatch, side: Side, recipe: Recipe) -> Tensor:
    """S-DPO as published: one chosen session against several; `rejected` is [P, R, m]. Dropout is off, as elsewhere."""
    log_probs = _log_probs(model, pairs.history, torch.cat([pairs.chosen[:, None], pairs.rejected], dim=1), side)
    loss = preference.sdpo(log_probs[:, 0], log_probs[:, 1:], pairs.ref_chosen, pairs.ref_rejected, beta=recipe.beta)
    return loss.mean()


def _group_loss(model: OneRec, history: HistoryBatch, users: list[Mined], side: Side, recipe: Recipe) -> Tensor:
    """ECPO or GBPO on some candidates of each user; advantages are those among all of the user's candidates."""
    some = [torch.randperm(len(user.group))[:GROUP] for user in users]
    least = min(map(len, some))
    columns = [(user.group[at], user.ref_group[at], user.advantages[at]) for user, at in zip(users, some, strict=True)]
    sessions, old, advantages = (torch.stack([one[:least] for one in column]) for column in zip(*columns, strict=True))
    log_probs = _log_probs(model, history, sessions, side)
    loss = policy.ecpo if recipe.loss == "ecpo" else policy.gbpo
    return loss(log_probs, old, advantages).mean()


def _log_probs(model: OneRec, history: HistoryBatch, sessions: Tensor, side: Side) -> Tensor:
    """Of sessions [P, N, m] of P users, [P, N]; the histories are encoded once."""
    count = sessions.shape[1]
    model.eval()
    memory = model.encode(history)
    memory = Memory(memory.states.repeat_interleave(count, 0), memory.mask.repeat_interleave(count, 0))
    log_probs = token_log_probs(model, memory, sessions.flatten(0, 1), side.catalogue.trie).sum((1, 2))
    model.train()
    return log_probs.view(-1, count)
