"""From gradients to weights: clipped to a norm, refused where anything is not finite, then AdamW on both models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_

from trainer.state import TrainState

NOTHING_TO_LEARN = "nothing to learn"
NON_FINITE = "non-finite"


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of a step."""

    onerec: float
    reward: float


def update(state: TrainState, figures: dict[str, float], rates: Rates, *, onerec: bool, reward: bool) -> str | None:
    """Change the weights of the models that have gradients, both or neither; why not, where not.

    Adds the norms of the gradients to `figures`.
    """
    settings = state.settings
    parts = [
        (name, model, optimizer, learning_rate)
        for has_gradients, name, model, optimizer, learning_rate in (
            (onerec, "gradient_norm", state.onerec, state.onerec_optimizer, rates.onerec),
            (reward, "reward_gradient_norm", state.reward, state.reward_optimizer, rates.reward),
        )
        if has_gradients
    ]
    if not parts:
        return NOTHING_TO_LEARN
    for name, model, _, _ in parts:
        norm = clip_grad_norm_(model.parameters(), settings.clip_norm, foreach=True)
        figures[name] = (norm if state.parallel is None else state.parallel.plain(norm)).item()
    if bad := [name for name, value in figures.items() if not torch.isfinite(torch.tensor(value))]:
        return f"{NON_FINITE}: {', '.join(bad)}"
    for _, _, optimizer, learning_rate in parts:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    if onerec:
        state.onerec.update_expert_bias(settings.expert_bias_rate)
    return None
