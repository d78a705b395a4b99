"""One step over its parts, on every rank alike: the same code, the same numbers, the same decision.

Figures and expert loads are added up over the ranks before anything depends on them, so that all ranks take the same
step, refuse it together, and move the experts' biases by the load of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from onerec.catalogue import CatalogueSnapshot
from onerec.model.moe import SparseMoE
from onerec.model.onerec import OneRec
from onerec.model.reward import RewardModel
from onerec.model.trie import Trie
from onerec.settings import TrainerSettings
from trainer import kernels, objectives
from trainer.parts import Part
from trainer.shared_trie import NewCodes
from trainer.state import TrainState
from trainer.update import NOTHING_TO_LEARN, Rates, update


@dataclass(frozen=True, slots=True)
class Lesson:
    """Message: a step, as one rank gets it."""

    settings: TrainerSettings
    rates: Rates
    count: int
    """Parts of the step, over all ranks."""
    parts: Sequence[tuple[int, Part]]
    """Those to compute here, by their place among all; every rank has as many."""
    past: bool
    """Whether they are cut from histories, which do not tell all that sessions tell."""
    codes: NewCodes | None = None
    kernels: str = kernels.TORCH
    """By which the first rank computes."""


def teach(
    state: TrainState, parts: Sequence[Part], catalogue: CatalogueSnapshot, rates: Rates, *, past: bool = False
) -> tuple[dict[str, float], str | None]:
    """A step in these parts, on all ranks that the state is on: its figures, and why it was refused.

    `past` says that they are cut from histories. Raises RankLostError where a rank is gone.
    """
    first, placed = parts[0], list(enumerate(parts))
    if not (first.pairs or first.sessions or first.rated):
        return {}, NOTHING_TO_LEARN
    if state.parallel is None:
        return learn(state, Lesson(state.settings, rates, len(parts), placed, past), state.trie(catalogue.trie))
    ranks, trie = state.parallel.ranks, state.parallel.trie
    codes = trie.changes(catalogue)
    lessons = [
        Lesson(state.settings, rates, len(parts), mine, past, codes, kernels.name())
        for mine in deal(placed, ranks.world)
    ]
    ranks.tell(lessons)
    return learn(state, lessons[0], trie.take(codes))


def deal(parts: Sequence[tuple[int, Part]], world: int) -> list[list[tuple[int, Part]]]:
    """Parts r, r + W, r + 2W to rank r of W; where they do not come out even, some compute one for nothing."""
    place, part = parts[0]
    dealt = [*parts, *[(place, part.for_nothing())] * (-len(parts) % world)]
    return [dealt[rank::world] for rank in range(world)]


def learn(state: TrainState, lesson: Lesson, trie: Trie) -> tuple[dict[str, float], str | None]:
    """The step on this rank, while the others do theirs. Raises RankLostError where one is gone."""
    if state.parallel is None:
        return _learn(state, lesson, trie, state.device)
    with state.parallel.ranks.watched():
        return _learn(state, lesson, trie, state.parallel.ranks.device)


def _learn(state: TrainState, lesson: Lesson, trie: Trie, device: torch.device) -> tuple[dict[str, float], str | None]:
    tally = _Tally(lesson.count)
    parts = [(place, part.to(device)) for place, part in lesson.parts]
    first = parts[0][1]
    has_onerec, has_reward = bool(first.pairs or first.sessions), first.rated is not None
    if has_onerec:
        state.onerec_optimizer.zero_grad(set_to_none=True)
        losses = [_onerec_loss(place, part, state.settings, trie, tally) for place, part in parts]
        _backward(state, state.onerec, losses)
    if has_reward:
        state.reward_optimizer.zero_grad(set_to_none=True)
        ratings = [_reward_loss(place, part, tally, past=lesson.past) for place, part in parts]
        _backward(state, state.reward, ratings)
    figures = tally.over_all(state)
    return figures, update(state, figures, lesson.rates, onerec=has_onerec, reward=has_reward)


@dataclass(slots=True)
class _Tally:
    """What the parts of a step add up to."""

    count: int
    figures: dict[str, list[float]] = field(default_factory=dict)
    """By name, of each part; 0 where it was computed elsewhere."""
    loads: list[Tensor] = field(default_factory=list)
    """int64 [experts] of each decoder block."""

    def note(self, place: int, share: float, figures: dict[str, float]) -> None:
        """A part's means."""
        for name, value in figures.items():
            of_parts = self.figures.setdefault(name, [0.0] * self.count)
            if share:
                of_parts[place] = value * share

    def balance(self, model: OneRec, *, counts: bool) -> None:
        """The loads of the forward that has just run."""
        loads = [moe.load * int(counts) for moe in _experts(model)]
        self.loads = [a + b for a, b in zip(self.loads, loads, strict=True)] if self.loads else loads

    def over_all(self, state: TrainState) -> dict[str, float]:
        """The means of the whole batch, in the order of the parts; the model gets the loads of it."""
        if state.parallel is not None:
            ranks = state.parallel.ranks
            table = ranks.add_up(torch.tensor(list(self.figures.values()), dtype=torch.float64))
            self.figures = dict(zip(self.figures, table.tolist(), strict=True))
            if self.loads:
                self.loads = list(ranks.add_up(torch.stack(self.loads)).to(ranks.device))
        for moe, load in zip(_experts(state.onerec), self.loads, strict=False):
            moe.load = load
        return {name: sum(values) for name, values in self.figures.items()}


def _onerec_loss(
    place: int, part: Part, settings: TrainerSettings, trie: Trie, tally: _Tally
) -> Callable[[OneRec], Tensor]:
    """NTP + lambda * preference of a part, scaled to its share."""

    def loss(model: OneRec) -> Tensor:
        torch.manual_seed(part.seed)
        losses: list[Tensor] = []
        if part.pairs is not None:  # before the sessions: the loads that count are those of the last forward
            share = part.pairs.share
            preference, figures = objectives.preference_loss(model, part.pairs.batch, trie, settings)
            losses.append(settings.preference_weight * preference * share)
            tally.note(place, share, {"preference": preference.item(), **figures})
        if part.sessions is not None:
            share = part.sessions.share
            next_token = objectives.next_token_loss(model, part.sessions.batch, trie)
            assert next_token is not None, "a batch that weighs something covers something"
            losses.append(next_token * share)
            tally.note(place, share, {"next_token": next_token.item()})
        tally.balance(model, counts=part.balances)
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    return loss


def _reward_loss(place: int, part: Part, tally: _Tally, *, past: bool) -> Callable[[RewardModel], Tensor]:
    """L_RM of a part, scaled to its share."""
    reward_loss = objectives.history_reward_loss if past else objectives.session_reward_loss

    def loss(model: RewardModel) -> Tensor:
        assert part.rated is not None
        reward = reward_loss(model, part.rated.batch)
        tally.note(place, part.rated.share, {"reward": reward.item()})
        return reward * part.rated.share

    return loss


def _backward(state: TrainState, model: nn.Module, losses: Sequence[Callable[..., Tensor]]) -> None:
    """Gradients of the sum of the losses of all ranks, part after part."""
    if state.parallel is not None:
        state.parallel.backward(model, losses)
        return
    for loss in losses:
        loss(model).backward()  # type: ignore[no-untyped-call]


def _experts(model: OneRec) -> list[SparseMoE]:
    return [module for module in model.modules() if isinstance(module, SparseMoE)]
