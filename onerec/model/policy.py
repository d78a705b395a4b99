"""Policy objectives on groups of sampled outputs: ECPO and GBPO, which follow OneRec's DPO.

Both are pure functions of log-probabilities of any shape and return one loss an output, to be averaged. pi is the
policy, pi_old the model that made the outputs, A the advantage; sg stops gradients. What is divided by is raised where
pi_old is small, so that an output that the policy has come to know does not blow up the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CERTAIN = -1e-6
"""Log-probabilities above this count as this where 1 - pi is taken."""


def advantages(rewards: Tensor) -> Tensor:
    """(r - mean) / std over the last dimension, the group; 0 where all are alike."""
    centred = rewards - rewards.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    return torch.where(std > 0, centred / std.clamp(min=1e-12), torch.zeros_like(centred))


def ecpo(log_probs: Tensor, old: Tensor, advantage: Tensor, *, clip: float = 0.2, delta: float = 0.1) -> Tensor:
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A), rho = pi / max(pi_old, sg(pi) / (1 + eps + delta)).

    Early-clipped GRPO (OneRec technical report, arXiv 2506.13695): for A > 0 it is GRPO's, for A < 0 rho is at most
    1 + eps + delta. The report gives delta; eps = `clip` is GRPO's usual one.
    """
    floor = log_probs.detach() - math.log(1.0 + clip + delta)
    rho = torch.exp(log_probs - torch.maximum(old, floor))
    return -torch.minimum(rho * advantage, rho.clamp(1.0 - clip, 1.0 + clip) * advantage)


def gbpo(log_probs: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    """-A pi / pi', pi' = max(pi_old, sg(pi)) where A >= 0, else max(pi_old, 1 - sg(pi)).

    Gradient-bounded (OneRec-V2, arXiv 2508.20900): no gradient is larger than that of binary cross-entropy, and none is
    clipped away. An output of small probability is hardly pushed down: its weight is about pi.
    """
    now = log_probs.detach()
    other = torch.log(-torch.expm1(now.clamp(max=CERTAIN)))
    bound = torch.maximum(old, torch.where(advantage >= 0, now, other))
    return -advantage * torch.exp(log_probs - bound)
