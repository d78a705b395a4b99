"""Preference losses on pairs of sessions: DPO (the paper's choice, section 3.3.2) and its variants.

All are pure functions of summed log-probabilities [P] (S-DPO: rejected [P, N]) and return one loss a pair.
w is the chosen session, l the rejected one, h = (w - w_ref) - (l - l_ref).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """h: how much more than the reference the policy prefers the chosen session."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigma(beta h) (Rafailov et al., arXiv 2305.18290)."""
    return -functional.logsigmoid(beta * margin(chosen, rejected, ref_chosen, ref_rejected))


def ipo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float = 0.1) -> Tensor:
    """(h - 1 / (2 beta))^2 on summed log-probabilities (Azar et al., arXiv 2310.12036; beta is its tau)."""
    return (margin(chosen, rejected, ref_chosen, ref_rejected) - 1.0 / (2.0 * beta)).square()


def cdpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float = 0.1,
    flipped: float = 0.1,
) -> Tensor:
    """-(1 - eps) log sigma(beta h) - eps log sigma(-beta h): a share eps = `flipped` of the pairs is mislabelled."""
    h = beta * margin(chosen, rejected, ref_chosen, ref_rejected)
    return -(1.0 - flipped) * functional.logsigmoid(h) - flipped * functional.logsigmoid(-h)


def rdpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float = 0.1,
    flipped: float = 0.1,
) -> Tensor:
    """[-(1 - eps) log sigma(beta h) + eps log sigma(-beta h)] / (1 - 2 eps): the unbiased (robust) variant.

    Unbounded below as h grows. `flipped` must be below 0.5.
    """
    h = beta * margin(chosen, rejected, ref_chosen, ref_rejected)
    loss = -(1.0 - flipped) * functional.logsigmoid(h) + flipped * functional.logsigmoid(-h)
    return loss / (1.0 - 2.0 * flipped)


def cpo(chosen: Tensor, rejected: Tensor, *, tokens: int, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """-log sigma(beta (w - l)) + alpha * NLL of the chosen session per token; no reference."""
    return -functional.logsigmoid(beta * (chosen - rejected)) - alpha * chosen / tokens


def simpo(chosen: Tensor, rejected: Tensor, *, tokens: int, beta: float = 2.0, gamma_ratio: float = 0.25) -> Tensor:
    """-log sigma(beta w / |w| - beta l / |l| - gamma), gamma = gamma_ratio * beta; no reference.

    Both sessions have `tokens` tokens.
    """
    return -functional.logsigmoid(beta * (chosen - rejected) / tokens - gamma_ratio * beta)


def sdpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float = 1.0) -> Tensor:
    """-log sigma(-log sum_l exp(beta [(l - l_ref) - (w - w_ref)])): rejected and ref_rejected are [P, N].

    With one rejected session it is DPO.
    """
    gaps = beta * ((rejected - ref_rejected) - (chosen - ref_chosen).unsqueeze(-1))
    return -functional.logsigmoid(-torch.logsumexp(gaps, dim=-1))
