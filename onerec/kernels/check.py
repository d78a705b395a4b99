"""Whether the compiled kernels may be used: they must have agreed with torch, once in each process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from onerec.kernels import binding
from onerec.kernels.binding import Compiled
from onerec.model import backend, branches
from onerec.model.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    attend_projected,
    causal_bias,
    padding_bias,
)
from onerec.model.backend import Kernels
from onerec.model.experts import mix
from onerec.model.norm import ResidualNorm
from onerec.model.swiglu import FeedForward, swiglu

LOG = logging.getLogger(__name__)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.02}
"""Largest difference of a result or gradient that is rounding, as a share of its largest element."""
Piece = Callable[[torch.dtype], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""Of a dtype: (inputs that want a gradient, results)."""


@cache
def checked(products: bool | None = None) -> Compiled | None:
    """The kernels, as `Compiled` says; None where they are not built or differ from torch."""
    kernels = binding.load(products)
    if kernels is None:
        return None
    difference = disagreement(kernels)
    if difference is None:
        return kernels
    LOG.error("the compiled training kernels differ from torch in %s: they are not used, torch computes", difference)
    return None


def disagreement(kernels: Kernels, seed: int = 0) -> str | None:
    """In what kernels and torch differ by more than rounding; None for nothing. Torch's own numbers stay as they were.

    Torch computes in float32 what is compared, whatever the kernels compute in.
    """
    for dtype, bound in BOUNDS.items():
        for piece in (norms, activations, attentions, projected_attentions, branches_of_a_stream, experts):
            found = [_results(piece, dtype, kernels, seed), _results(piece, torch.float32, None, seed)]
            for place, (mine, theirs) in enumerate(zip(*found, strict=True)):
                far = float((mine.float() - theirs).abs().max() / theirs.abs().max())
                if not far <= bound:
                    return f"{piece.__name__}, tensor {place} in {dtype}, by {far:.1g} of its largest element"
    return None


def _results(piece: Piece, dtype: torch.dtype, kernels: Kernels | None, seed: int) -> Iterator[Tensor]:
    """What comes out, and the gradients of a weighted sum of it."""
    with torch.random.fork_rng(devices=()), torch.enable_grad(), backend.using(kernels):
        torch.manual_seed(seed)
        inputs, outputs = piece(dtype)
        weighted = [(out.float() * torch.randn(out.shape)).sum() for out in outputs]
        grads = torch.autograd.grad(torch.stack(weighted).sum(), inputs)
    yield from (out.detach() for out in outputs)
    yield from grads


def norms(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """A stream with and without something added, both of its uses."""
    x, added = _drawn(9, 7, 48), _drawn(9, 7, 48)
    norm = ResidualNorm(48)
    torch.nn.init.normal_(norm.weight)
    _, first = norm(x, None, dtype)
    return [x, added, norm.weight], [first, *norm(x, added.to(dtype), dtype)]


def activations(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Small gates and large ones."""
    x = _drawn(33, 96, scale=5.0)
    return [x], [swiglu(x.to(dtype))]


def attentions(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """As many keys as fill no vector: without a bias, causal, and with a bias for each sample."""
    inputs = [_drawn(3, 2, 19, 8, scale=2.0) for _ in range(3)]
    there = torch.arange(19) <= torch.tensor([[18], [7], [0]])
    query, key, value = (x.to(dtype) for x in inputs)
    biases = (None, causal_bias(19, query.device), padding_bias(there))
    return inputs, [attend(query, key, value, bias) for bias in biases]


def projected_attentions(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Self-attention and attention over a memory, of heads as projections leave them; odd numbers of rows."""
    inputs = [_drawn(3, 19, 192), _drawn(3, 19, 64), _drawn(3, 37, 128)]
    there = torch.arange(37) <= torch.tensor([[36], [7], [0]])
    whole, query, memory = (x.to(dtype) for x in inputs)
    causal = attend_projected(2, causal_bias(19, whole.device), whole)
    return inputs, [causal, attend_projected(2, padding_bias(there), query, memory)]


def branches_of_a_stream(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Self-attention, attention over a memory and a feed-forward layer, one after the other; odd numbers of rows."""
    x, added, memory = _drawn(3, 19, 64), _drawn(3, 19, 64), _drawn(3, 37, 64)
    norms_ = [ResidualNorm(64) for _ in range(3)]
    layers = SelfAttention(64, 2), CrossAttention(64, 2), FeedForward(64, 48)
    there = padding_bias(torch.arange(37) <= torch.tensor([[36], [7], [0]]))
    total, more = branches.self_attention(norms_[0], layers[0], x, None, causal_bias(19, x.device), dtype)
    total, more = branches.cross_attention(norms_[1], layers[1], total, added.to(dtype) + more, memory.to(dtype), there)
    total, more = branches.feed_forward(norms_[2], layers[2], total, more, dtype)
    weights = [weight for part in (*norms_, *layers) for weight in part.parameters()]
    return [x, added, memory, *weights], [total, more]


def experts(dtype: torch.dtype) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Some with many rows and one with none; gates and choices are given, as routing rounds by itself."""
    x, w_in, w_out = _drawn(70, 64), _drawn(4, 64, 96, scale=0.1), _drawn(4, 48, 64, scale=0.1)
    gates = torch.rand(70, 2).requires_grad_()
    chosen = torch.tensor([[0, 2], [2, 3]]).repeat(35, 1)
    return [x, gates, w_in, w_out], [mix(x.to(dtype), gates, chosen, w_in, w_out)[0]]


def _drawn(*shape: int, scale: float = 1.0) -> Tensor:
    """Numbers that bfloat16 holds, so that both sides begin with the same."""
    return (scale * torch.randn(*shape)).bfloat16().float().requires_grad_()
