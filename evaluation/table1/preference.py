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

from evaluation.table1 import fixed_shapes
from evaluation.table1.fixed_shapes import SampleTable
from evaluation.table1.generative import DEVICE_CHUNK, MIN_BEAM, seen
from evaluation.table1.judge import rated
from evaluation.table1.protocol import Form
from evaluation.table1.world import World
from inference.engine.search import Engine
from inference.sampler.pairs import merged
from onerec.catalogue import CatalogueSnapshot
from onerec.errors import CheckFailedError
from onerec.features import HistoryArrays, history_batch
from onerec.model import policy, preference
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import Memory, OneRec
from onerec.model.reward import RewardModel, Rewards
from onerec.model.trie import Trie
from onerec.settings import RewardWeights, SeedSettings, TrainerSettings
from trainer.batches import PairBatch
from trainer.objectives import next_token_loss, preference_loss
from trainer.samples import Rows, Source, cut, sample_batch
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

    @property
    def by_round(self) -> bool:
        """Whether it is looked at after each round: IPA, and beside it the control after as many steps."""
        return self.iterative or self.loss == "none"


RECIPES = {
    "ntp": Recipe(loss="none", weight=0.0),
    "dpo": Recipe(loss="dpo", weight=0.05),  # beta / 2
    "dpo-strong": Recipe(loss="dpo", weight=0.2),  # four times the pull of all others: what more reward costs
    "ipo": Recipe(loss="ipo", weight=0.00025),  # 1 / beta
    "cdpo": Recipe(loss="cdpo", weight=0.0625),  # (1 - 2 eps) beta / 2
    "rdpo": Recipe(loss="rdpo", weight=0.04),  # beta / 2 / (1 - 2 eps)
    "cpo": Recipe(loss="cpo", weight=0.05),  # beta / 2, and the chosen session's own loss
    "simpo": Recipe(loss="simpo", weight=0.03, beta=2.0),  # .62 beta / tokens
    "sdpo": Recipe(loss="sdpo", weight=0.033),  # 3 beta / 4, over three rejected sessions
    "ecpo": Recipe(loss="ecpo", weight=0.01),  # A / GROUP a candidate
    "gbpo": Recipe(loss="gbpo", weight=0.01),
    "ipa": Recipe(loss="dpo", weight=0.05, iterative=True),
}
"""Every loss pulls at first as hard as DPO's: lambda times its slope in the margin, which stands beside it, is .0025.

One lambda for all would compare how steep losses are: IPO's slope is 200 times DPO's with the same beta. At twice this
pull a prototype lost 1.3 % of its hits against the control, and gained .02 of watch time."""


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
    """`preference_candidates` of each of `preference_users` users by beam search, ordered by the training reward model.

    Users of the cases make no pairs: rewards are reported of users whose candidates nobody has aligned.
    """
    side, random = world.rows, np.random.default_rng(seed)
    others = np.setdiff1d(np.flatnonzero(np.diff(side.past.starts)), world.cases.users)
    users = random.permutation(others)[: form.preference_users].tolist()
    engine, width, found = Engine(copy.deepcopy(model), precise=True), form.preference_candidates, list[Mined]()
    size = 1 if engine.device.type == "cpu" else max(1, DEVICE_CHUNK * MIN_BEAM // width)
    for first in range(0, len(users), size):
        own = users[first : first + size]
        histories = [side.history(row) for row in own]
        batch = history_batch(histories, side.catalogue, model.config)
        generated = engine.generate(batch, side.catalogue, beam_width=width, exclude=seen(world, own))
        sessions, log_probs = generated.sessions.cpu(), generated.log_probs.cpu()
        rewards = zip(*rated(reward, batch, sessions.numpy(), side.catalogue), strict=True)
        for history, some, values, each in zip(histories, sessions, log_probs, rewards, strict=True):
            if (pair := _extremes(history, some, values, Rewards(*each))) is not None:
                found.append(pair)
    LOG.info("mined the candidates of %d users: %d pairs", len(users), len(found))
    return found


def _extremes(history: HistoryArrays, sessions: Tensor, log_probs: Tensor, rewards: Rewards) -> Mined | None:
    """Best and worst of one user's candidates [N, m]; None where too few are whole."""
    whole = (sessions >= 0).all(1)
    sessions, log_probs = sessions[whole], log_probs[whole]
    if len(sessions) <= REJECTED:
        return None
    scalar = merged(Rewards(*(values[whole] for values in rewards)), RewardWeights())
    order = torch.argsort(scalar)
    best, worst = int(order[-1]), order[:REJECTED]
    extremes = sessions[best], sessions[worst], float(log_probs[best]), log_probs[worst].clone()
    return Mined(history, *extremes, sessions.clone(), log_probs.clone(), policy.advantages(scalar))


class Aligner:
    """Makes the preference rows of one seed from one model; all but IPA use the pairs mined from it."""

    def __init__(self, model: OneRec, reward: RewardModel, world: World, form: Form, seed: int) -> None:
        self._model, self._reward, self._world, self._form, self._seed = model, reward, world, form, seed
        self._mined: list[Mined] | None = None
        side = world.rows
        self._samples = cut([side.history(row) for row in range(len(side.past))], side.catalogue, model.config)
        self._device = model.bos.device
        self._trie = side.catalogue.trie.to(self._device)
        self._table = None if self._device.type == "cpu" else SampleTable.of(self._samples, self._device)

    def aligned(self, recipe: Recipe, on_round: Callable[[OneRec], None] = lambda _: None) -> OneRec:
        """A copy of the model that has learned by the recipe; `on_round` sees it after each round, without dropout.

        Only an iterative recipe mines anew in a round. Raises CheckFailedError for a loss that is not finite.
        """
        model, form = copy.deepcopy(self._model), self._form
        rounds = form.rounds if recipe.by_round else 1
        steps = np.diff(np.linspace(0, form.preference_steps, rounds + 1).astype(int)).tolist()
        optimizer = adamw(model, LEARNING_RATE, TrainerSettings())
        source = Source(self._samples, SeedSettings(batch=BATCH), self._seed)
        random = np.random.default_rng(self._seed)
        torch.manual_seed(self._seed)
        for number, count in enumerate(steps):
            anew = recipe.iterative and number > 0
            pairs = self._pairs(model, number) if anew else self._first_pairs()
            model.train()
            losses = [self._step(model, optimizer, source, _drawn(pairs, random, recipe), recipe) for _ in range(count)]
            if not bool(torch.isfinite(torch.stack(losses)).all()):
                raise CheckFailedError(f"The loss of {recipe.loss} is not finite.", "Lower its weight.")
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
    ) -> Tensor:
        preferred: Tensor | None = None
        if recipe.loss != "none" and pairs:
            preferred = _loss(model, pairs, self._world.rows.catalogue, self._trie, recipe)
        loss = self._next_token_loss(model, source.next_token(1.0))
        if preferred is not None:
            loss = loss + recipe.weight * (1.0 if recipe.ratio is None else len(pairs) / PAIRS) * preferred
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return loss.detach()

    def _next_token_loss(self, model: OneRec, rows: Rows) -> Tensor:
        if self._table is not None:
            return fixed_shapes.next_token_loss(model, self._table, self._trie, torch.from_numpy(rows).to(self._device))
        batch = sample_batch(self._samples, rows, self._world.rows.catalogue, model.config)
        loss = next_token_loss(model, batch, self._trie)
        assert loss is not None, "every sample has a positive"
        return loss


def _drawn(pairs: list[Mined], random: np.random.Generator, recipe: Recipe) -> list[Mined]:
    count = PAIRS if recipe.ratio is None else int(random.binomial(BATCH, recipe.ratio))
    return [pairs[at] for at in random.integers(0, len(pairs), count)] if pairs else []


def _loss(model: OneRec, pairs: list[Mined], catalogue: CatalogueSnapshot, trie: Trie, recipe: Recipe) -> Tensor:
    """The preference loss of a step; `trie` is the catalogue's on the model's device."""
    history = history_batch([pair.history for pair in pairs], catalogue, model.config).to(trie.device)
    if recipe.loss in ("ecpo", "gbpo"):
        return _group_loss(model, history, pairs, trie, recipe)
    chosen, rejected = torch.stack([p.chosen for p in pairs]), torch.stack([p.rejected for p in pairs])
    ref_chosen, ref_rejected = torch.tensor([p.ref_chosen for p in pairs]), torch.stack([p.ref_rejected for p in pairs])
    columns = (part.to(trie.device) for part in (chosen, rejected, ref_chosen, ref_rejected))
    batch = PairBatch(history, *columns)
    if recipe.loss == "sdpo":
        return _several_rejected(model, batch, trie, recipe)
    settings = TrainerSettings(preference_loss=recipe.loss, preference_beta=recipe.beta)
    worst = dataclasses.replace(batch, rejected=batch.rejected[:, 0], ref_rejected=batch.ref_rejected[:, 0])
    return preference_loss(model, worst, trie, settings)[0]


def _several_rejected(model: OneRec, pairs: PairBatch, trie: Trie, recipe: Recipe) -> Tensor:
    """S-DPO as published: one chosen session against several; `rejected` is [P, R, m]. Dropout is off, as elsewhere."""
    log_probs = _log_probs(model, pairs.history, torch.cat([pairs.chosen[:, None], pairs.rejected], dim=1), trie)
    loss = preference.sdpo(log_probs[:, 0], log_probs[:, 1:], pairs.ref_chosen, pairs.ref_rejected, beta=recipe.beta)
    return loss.mean()


def _group_loss(model: OneRec, history: HistoryBatch, users: list[Mined], trie: Trie, recipe: Recipe) -> Tensor:
    """ECPO or GBPO on some candidates of each user; advantages are those among all of the user's candidates."""
    some = [torch.randperm(len(user.group))[:GROUP] for user in users]
    least = min(map(len, some))
    each = [(user.group[at], user.ref_group[at], user.advantages[at]) for user, at in zip(users, some, strict=True)]
    columns = (torch.stack([one[:least] for one in column]) for column in zip(*each, strict=True))
    sessions, old, advantages = (column.to(trie.device) for column in columns)
    log_probs = _log_probs(model, history, sessions, trie)
    loss = policy.ecpo if recipe.loss == "ecpo" else policy.gbpo
    return loss(log_probs, old, advantages).mean()


def _log_probs(model: OneRec, history: HistoryBatch, sessions: Tensor, trie: Trie) -> Tensor:
    """Of sessions [P, N, m] of P users, [P, N]; the histories are encoded once."""
    count = sessions.shape[1]
    model.eval()
    memory = model.encode(history)
    memory = Memory(memory.states.repeat_interleave(count, 0), memory.mask.repeat_interleave(count, 0))
    log_probs = token_log_probs(model, memory, sessions.flatten(0, 1), trie).sum((1, 2))
    model.train()
    return log_probs.view(-1, count)
