"""One step: the only place where the model changes, live, at resume and when a version is made again.

`apply_step` is a function of the state and its input alone: neither clock nor broker nor order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from schemas.records import OffsetRange
from trainer import fixed_shapes, objectives
from trainer.admission import Admitted, Refusal, StepInput, admit
from trainer.batches import pair_batch, session_batch
from trainer.fixed_shapes import Targets
from trainer.lesson import teach
from trainer.parts import divide
from trainer.placement import moved
from trainer.recorded import RecordedGradients, can_record
from trainer.state import TrainState, step_seed
from trainer.update import Rates, update


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did, for journal, metrics and the next version's announcement."""

    step: int
    seed: int
    learning_rate: float
    ranges: tuple[OffsetRange, ...]
    losses: dict[str, float]
    refused: str | None
    """Why the weights stayed as they were; None where they changed."""
    sessions: int
    pairs: int
    duplicates: int
    refusals: tuple[Refusal, ...]
    produced_ms: tuple[int, ...]


@dataclass(slots=True)
class _Losses:
    onerec: Tensor | None
    reward: Tensor | None
    figures: dict[str, float]


def apply_step(state: TrainState, step_input: StepInput) -> StepResult:
    """Learn from one input and advance `state` by a step, whatever the input holds.

    A step whose losses or gradients are not finite, or that has nothing to learn from, leaves weights,
    optimizers and expert biases as they were and says why in `refused`; its input counts as consumed.
    """
    seed = step_seed(state.settings.random_seed, state.step + 1)
    torch.manual_seed(seed)
    rates = _rates(state)
    admitted = admit(state, step_input)
    if state.parallel is None and state.parts == 1 and records(state):
        figures, refused = _recorded(state, admitted, step_input, rates, seed)
    elif state.parallel is None and state.parts == 1:
        losses = _losses(state, admitted, step_input)
        figures, refused = losses.figures, _update(state, losses, rates)
    else:
        parts = divide(state, admitted, step_input.catalogue, seed)
        figures, refused = teach(state, parts, step_input.catalogue, rates)
    state.step += 1
    state.offsets.update({(r.topic, r.partition): r.next_offset for r in step_input.ranges})
    return StepResult(
        step=state.step,
        seed=seed,
        learning_rate=rates.onerec,
        ranges=_with_applied(step_input.ranges, admitted, refused),
        losses=figures,
        refused=refused,
        sessions=0 if refused else admitted.sessions,
        pairs=0 if refused else len(admitted.pairs),
        duplicates=admitted.duplicates,
        refusals=tuple(admitted.refusals),
        produced_ms=() if refused else tuple(admitted.produced_ms),
    )


def _rates(state: TrainState) -> Rates:
    settings, warmth = state.settings, state.warmth()
    return Rates(settings.learning_rate * warmth, settings.reward_learning_rate * warmth)


def records(state: TrainState) -> bool:
    """Whether steps of this state are computed in fixed shapes, as CUDA graphs."""
    return state.settings.cuda_graphs and can_record(state.onerec)


def _recorded(
    state: TrainState, admitted: Admitted, step_input: StepInput, rates: Rates, seed: int
) -> tuple[dict[str, float], str | None]:
    """The same in fixed shapes: the sessions' gradients by a graph, those of pairs, which are few, before them."""
    for optimizer in (state.onerec_optimizer, state.reward_optimizer):
        optimizer.zero_grad(set_to_none=True)
    figures: dict[str, float] = {}
    if admitted.pairs:
        preference, figures = _preference(state, admitted, step_input)
        preference.backward()  # type: ignore[no-untyped-call]
        del preference  # its gradients' places belong to the stream that it ran on
    covered = False
    if admitted.rows:
        settings, catalogue = state.settings, step_input.catalogue
        lesson = session_batch(admitted.rows, catalogue, state.config, settings.train_on)
        covered = bool((lesson.weight > 0).any())
        batch = moved(fixed_shapes.padded(lesson, state.config, settings.batch), state.device)
        targets = Targets.of(batch.leaves, state.trie(catalogue.trie), state.config)
        if state.recorded is None:
            state.recorded = RecordedGradients(state.onerec, state.reward)
        losses = state.recorded.add(batch, targets, seed=seed, next_token=covered)
        figures |= {name: loss.item() for name, loss in losses._asdict().items() if loss is not None}
    return figures, update(state, figures, rates, onerec=covered or bool(admitted.pairs), reward=bool(admitted.rows))


def _preference(state: TrainState, admitted: Admitted, step_input: StepInput) -> tuple[Tensor, dict[str, float]]:
    """The pairs' loss, weighted, and figures of them."""
    settings, catalogue = state.settings, step_input.catalogue
    pairs = moved(pair_batch(admitted.pairs, catalogue, state.config), state.device)
    preference, figures = objectives.preference_loss(state.onerec, pairs, state.trie(catalogue.trie), settings)
    return settings.preference_weight * preference, {"preference": preference.item(), **figures}


def _losses(state: TrainState, admitted: Admitted, step_input: StepInput) -> _Losses:
    """NTP + lambda * preference (paper, algorithm 2) for the one model, L_RM for the other."""
    settings, catalogue = state.settings, step_input.catalogue
    trie, device = state.trie(catalogue.trie), state.device
    losses = _Losses(None, None, {})
    if admitted.pairs:
        # Before the sessions: the experts' loads that count for balance are those of the last forward.
        losses.onerec, losses.figures = _preference(state, admitted, step_input)
    if admitted.rows:
        batch = moved(session_batch(admitted.rows, catalogue, state.config, settings.train_on), device)
        next_token = objectives.next_token_loss(state.onerec, batch, trie)
        if next_token is not None:
            losses.onerec = next_token if losses.onerec is None else losses.onerec + next_token
            losses.figures["next_token"] = next_token.item()
        losses.reward = objectives.session_reward_loss(state.reward, batch)
        losses.figures["reward"] = losses.reward.item()
    return losses


def _update(state: TrainState, losses: _Losses, rates: Rates) -> str | None:
    """Gradients of the losses that there are, then `update`."""
    for loss, optimizer in ((losses.onerec, state.onerec_optimizer), (losses.reward, state.reward_optimizer)):
        if loss is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
    taught = {"onerec": losses.onerec is not None, "reward": losses.reward is not None}
    return update(state, losses.figures, rates, **taught)


def _with_applied(ranges: tuple[OffsetRange, ...], admitted: Admitted, refused: str | None) -> tuple[OffsetRange, ...]:
    if refused is not None:
        return ranges
    return tuple(replace(r, applied=admitted.applied[r.topic, r.partition]) for r in ranges)
