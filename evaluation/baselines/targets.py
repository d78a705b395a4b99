"""The mean loss over the positions of a batch that have a target.

On CPU only these are computed. A GPU would have to tell the host how many there are, and the host would wait for it
in every step: there all positions are computed, and those without a target weigh nothing. The mean is the same.
Letters: B users, n exposures, d width, N items, T positions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import LinearCrossEntropyOptions, functional

IN_CACHE = LinearCrossEntropyOptions(batch_chunk_size=64, chunking_method=None)
"""Logits of so many positions at a time: those of a whole batch, 200 MB, would go through memory at every pass."""


def nothing(wanted: Tensor) -> bool:
    """Whether no position has a target, where the host can know: then there is no mean. Elsewhere it is 0."""
    return wanted.device.type == "cpu" and not bool(wanted.any())


def mean_of(loss: Callable[[Tensor, Tensor], Tensor], states: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """Mean of `loss` (states [T, d], targets int64 [T] -> [T]) over the positions `wanted` bool [B, n]."""
    if states.device.type == "cpu":
        return loss(states[wanted], targets[wanted]).mean()
    losses = loss(states.flatten(0, 1), targets.flatten()) * wanted.flatten()
    return losses.sum() / wanted.sum().clamp(min=1)


def cross_entropy(states: Tensor, table: Tensor, targets: Tensor, wanted: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the catalogue at the positions `wanted` bool [B, n].

    Logits are the products of states [B, n, d] and the table [N, d], and a bias [N]; int64 [B, n] are the targets.
    """
    if states.device.type == "cpu":
        return functional.linear_cross_entropy(
            states[wanted], table, targets[wanted], linear_bias=bias, options=IN_CACHE
        )
    return mean_of(
        lambda some, own: functional.cross_entropy(functional.linear(some, table, bias), own, reduction="none"),
        states,
        targets,
        wanted,
    )
