"""The compiled kernels: built once from the sources beside this file, found by a digest of what went into them."""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from onerec.compiled import Library
from onerec.errors import DependencyMissingError
from onerec.kernels import structures
from onerec.kernels.structures import kind, low, pointers
from onerec.machine import machine
from onerec.model.backend import (
    Attended,
    Attending,
    Branch,
    BranchGradients,
    Flow,
    Heads,
    Mixed,
    Normed,
    NormGradients,
    Routed,
    RoutedGradients,
    Shares,
    Stream,
)

LOG = logging.getLogger(__name__)
AVX2, AVX512_BF16 = ("avx2",), ("avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16")
"""Instructions of the two kinds of kernels: with the second they are wider and multiply bfloat16, so attention is
theirs as a whole."""


def library_for(instructions: Sequence[str]) -> Library:
    """The kernels of one kind, named by the last of its instructions."""
    # No contraction, or which products are fused with additions would be the compiler's choice.
    flags = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
    return Library(
        f"training-{instructions[-1]}",
        Path(__file__).with_name("kernels.cpp"),
        (*(f"-m{name}" for name in instructions), *flags),
        "the training kernels",
        "GCC 10 or Clang 12 will do.",
    )


LIBRARY = library_for(AVX512_BF16 if torch.cpu._is_avx512_bf16_supported() else AVX2)
BLOCKS = 64
"""Into which rows are cut for sums over them, however many threads there are."""
HEAD_UNIT = 32
"""`onerec::PANEL`."""
APART = "-apart"
"""Ends the name of kernels that could multiply by weights and leave that to oneDNN: their steps have other bits."""


class Compiled:
    """The loaded library, as `onerec.model.backend.Kernels`.

    `products` says whether it multiplies by weights, too: by default where it can and there are no tiles (AMX), by
    which oneDNN multiplies several times as fast. Raises OSError where torch's OpenMP is not the one that it was made
    for.
    """

    def __init__(self, target: Path, *, products: bool | None = None) -> None:
        library = ctypes.CDLL(str(target))
        address, number = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "norm_forward": (address, number, address, address, number, address, number),
            "norm_backward": (address, number, *(address,) * 6, number, number),
            "swiglu_forward": (number, number, number, address, address, number),
            "swiglu_backward": (number, number, number, address, address, address, number),
            "softmax_forward": (address, number, address, address, address, number),
            "softmax_backward": (address, number, address, address, address, number),
            "attention_forward": (address, address, number),
            "attention_backward": (address, address, number),
            "feed_forward_forward": (address, number),
            "feed_forward_backward": (address, address, number),
            "attention_branch_forward": (address, number),
            "attention_branch_backward": (address, address, number),
            "experts_forward": (address, number),
            "experts_backward": (address, address, number),
        }.items():
            if not hasattr(library, f"onerec_{name}"):  # attention and branches of AVX2's
                continue
            function = getattr(library, f"onerec_{name}")
            function.restype, function.argtypes = None, arguments
            setattr(self, f"_{name}", function)
        wanted = "amx_bf16" not in str(machine()["features"]) if products is None else products
        self.lanes = library.onerec_lanes()
        self.head_unit = HEAD_UNIT if hasattr(self, "_attention_forward") else 0
        self.branch_unit = HEAD_UNIT if hasattr(self, "_feed_forward_forward") and wanted else 0
        apart = bool(self.head_unit) and not self.branch_unit
        self.name = f"{target.stem}{APART if apart else ''}"

    _norm_forward: Callable[..., None]
    _norm_backward: Callable[..., None]
    _swiglu_forward: Callable[..., None]
    _swiglu_backward: Callable[..., None]
    _softmax_forward: Callable[..., None]
    _softmax_backward: Callable[..., None]
    _attention_forward: Callable[..., None]
    _attention_backward: Callable[..., None]
    _feed_forward_forward: Callable[..., None]
    _feed_forward_backward: Callable[..., None]
    _attention_branch_forward: Callable[..., None]
    _attention_branch_backward: Callable[..., None]
    _experts_forward: Callable[..., None]
    _experts_backward: Callable[..., None]

    def norm(self, x: Tensor, added: Tensor | None, gain: Tensor, dtype: torch.dtype, epsilon: float) -> Normed:
        """As `Kernels` says."""
        rows, width = x.shape
        normed = Normed(
            x if added is None else torch.empty_like(x), x.new_empty(x.shape, dtype=dtype), x.new_empty(rows)
        )
        structure = structures.Norm(rows, width, epsilon, x.data_ptr(), gain.data_ptr(), normed.inverse.data_ptr())
        self._norm_forward(
            ctypes.byref(structure),
            0 if added is None else kind(added),
            None if added is None else added.data_ptr(),
            normed.total.data_ptr(),
            kind(normed.out),
            normed.out.data_ptr(),
            torch.get_num_threads(),
        )
        return normed

    def norm_backward(
        self, grad: Tensor, grad_total: Tensor | None, normed: Normed, gain: Tensor, added_dtype: torch.dtype
    ) -> NormGradients:
        """As `Kernels` says."""
        rows, width = grad.shape
        blocks = min(BLOCKS, rows)
        total = normed.total
        grad_x, grad_gain, partial = torch.empty_like(total), torch.empty_like(gain), total.new_empty(blocks, width)
        grad_added = grad_x if added_dtype == grad_x.dtype else grad_x.new_empty(grad_x.shape, dtype=added_dtype)
        structure = structures.Norm(rows, width, 0.0, total.data_ptr(), gain.data_ptr(), normed.inverse.data_ptr())
        self._norm_backward(
            ctypes.byref(structure),
            kind(grad),
            grad.data_ptr(),
            None if grad_total is None else grad_total.data_ptr(),
            grad_x.data_ptr(),
            None if grad_added is grad_x else grad_added.data_ptr(),
            grad_gain.data_ptr(),
            partial.data_ptr(),
            blocks,
            torch.get_num_threads(),
        )
        return NormGradients(grad_x, grad_added, grad_gain)

    def swiglu(self, x: Tensor) -> Tensor:
        """As `Kernels` says."""
        rows, hidden = x.shape[0], x.shape[1] // 2
        out = x.new_empty(rows, hidden)
        self._swiglu_forward(kind(x), rows, hidden, x.data_ptr(), out.data_ptr(), torch.get_num_threads())
        return out

    def swiglu_backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """As `Kernels` says."""
        grad_x = torch.empty_like(x)
        addresses = (x.data_ptr(), grad.data_ptr(), grad_x.data_ptr())
        self._swiglu_backward(kind(x), *grad.shape, *addresses, torch.get_num_threads())
        return grad_x

    def softmax(self, scores: Tensor, bias: Tensor | None, scale: float) -> Shares:
        """As `Kernels` says. Float32 shares take the place of the scores; of others the scores are kept."""
        low = scores.dtype != torch.float32
        share = torch.empty_like(scores) if low else scores
        kept = torch.empty(math.prod(scores.shape[:-1]), 2) if low else None
        with_bias, structure = structures.of_scores(scores.shape, bias, scale)
        self._softmax_forward(
            ctypes.byref(structure),
            kind(scores),
            scores.data_ptr(),
            share.data_ptr(),
            None if kept is None else kept.data_ptr(),
            torch.get_num_threads(),
        )
        del with_bias  # it had to live until here
        return Shares(share, (share,) if kept is None else (scores, kept))

    def softmax_backward(self, shares: Shares, bias: Tensor | None, scale: float, grad: Tensor) -> Tensor:
        """As `Kernels` says; in place."""
        given, *kept = shares.saved
        with_bias, structure = structures.of_scores(given.shape, bias, scale)
        self._softmax_backward(
            ctypes.byref(structure),
            kind(given),
            given.data_ptr(),
            kept[0].data_ptr() if kept else None,
            grad.data_ptr(),
            torch.get_num_threads(),
        )
        del with_bias
        return grad

    def attention(self, heads: Heads, bias: Tensor | None, scale: float) -> Attended:
        """As `Kernels` says. What is saved are two numbers of each row of scores."""
        batch, queries, count, _ = heads.query.shape
        out, kept = heads.query.new_empty(heads.query.shape), torch.empty(batch * count * queries, 2)
        with_bias, structure = structures.of_attention(heads, bias, scale, kept)
        self._attention_forward(
            ctypes.byref(structure), ctypes.byref(structures.Place.of(out)), torch.get_num_threads()
        )
        del with_bias
        return Attended(out, kept)

    def attention_backward(
        self, heads: Heads, bias: Tensor | None, scale: float, saved: Tensor, grad: Tensor, *, to: Heads
    ) -> None:
        """As `Kernels` says."""
        with_bias, structure = structures.of_attention(heads, bias, scale, saved)
        places = structures.AttentionGradients(*map(structures.Place.of, (grad, *to)))
        self._attention_backward(ctypes.byref(structure), ctypes.byref(places), torch.get_num_threads())
        del with_bias

    def feed_forward(self, stream: Stream, weights: tuple[Tensor, ...]) -> Branch:
        """As `Kernels` says. Saved are what SwiGLU gets, in an order of its own, and the norm's factors."""
        (rows, width), hidden = stream.x.shape, weights[1].shape[1]
        gated, out = low(rows, 2 * hidden), low(rows, width)
        total, inverse = structures.summed(stream)
        addresses = pointers(*weights, gated, out)
        structure = structures.FeedForward(structures.of_stream(stream, total, inverse), hidden, *addresses)
        self._feed_forward_forward(ctypes.byref(structure), torch.get_num_threads())
        return Branch(total, out, (inverse, gated))

    def feed_forward_backward(
        self, stream: Stream, weights: tuple[Tensor, ...], saved: tuple[Tensor, ...], flow: Flow
    ) -> BranchGradients:
        """As `Kernels` says."""
        inverse, gated = saved
        found = structures.empty_gradients(stream, weights, None, flow)
        addresses = pointers(*weights, gated, None)
        residual = structures.of_stream(stream, stream.x, inverse)
        structure = structures.FeedForward(residual, weights[1].shape[1], *addresses)
        grads = structures.FeedForwardGradients(structures.of_flow(found, flow), *pointers(*found.weights))
        self._feed_forward_backward(ctypes.byref(structure), ctypes.byref(grads), torch.get_num_threads())
        return found

    def attention_branch(self, stream: Stream, weights: tuple[Tensor, ...], attending: Attending) -> Branch:
        """As `Kernels` says. Saved are projections, what attention gives out, and numbers of rows."""
        rows, width = stream.x.shape
        memory = attending.memory
        projected, attended, out = (
            low(rows, len(weights[0])),
            low(rows, width),
            low(rows, width),
        )
        theirs = None if memory is None else low(len(memory), 2 * width)
        total, inverse = structures.summed(stream)
        kept = torch.empty(rows * attending.heads, 2)
        saved = (inverse, projected, attended, kept, *(() if theirs is None else (theirs,)))
        bias, structure = structures.of_attention_branch(
            structures.of_stream(stream, total, inverse), weights, attending, saved, out
        )
        self._attention_branch_forward(ctypes.byref(structure), torch.get_num_threads())
        del bias
        return Branch(total, out, saved)

    def attention_branch_backward(
        self, stream: Stream, weights: tuple[Tensor, ...], attending: Attending, saved: tuple[Tensor, ...], flow: Flow
    ) -> BranchGradients:
        """As `Kernels` says."""
        found = structures.empty_gradients(stream, weights, attending.memory, flow)
        residual = structures.of_stream(stream, stream.x, saved[0])
        bias, structure = structures.of_attention_branch(residual, weights, attending, saved, None)
        own, *memory, out = found.weights
        addresses = pointers(own, memory[0] if memory else None, out, found.memory)
        grads = structures.AttentionBranchGradients(structures.of_flow(found, flow), *addresses)
        self._attention_branch_backward(ctypes.byref(structure), ctypes.byref(grads), torch.get_num_threads())
        del bias
        return found

    def experts(self, routed: Routed, weights: tuple[Tensor, Tensor]) -> Mixed:
        """As `Kernels` says. Saved are what SwiGLU gets, in an order of its own, what experts give out, and slots."""
        rows, width = routed.x.shape
        experts, hidden = weights[1].shape[:2]
        count = routed.chosen.numel()
        load = torch.empty(experts, dtype=torch.int64)
        saved = (
            load,
            *torch.empty(2, count, dtype=torch.int64),
            low(count, 2 * hidden),
            low(count, width),
        )
        mixed = torch.empty(rows, width)
        self._experts_forward(
            ctypes.byref(structures.of_experts(routed, weights, saved, mixed)), torch.get_num_threads()
        )
        return Mixed(mixed, load, saved)

    def experts_backward(
        self, routed: Routed, weights: tuple[Tensor, Tensor], saved: tuple[Tensor, ...], grad: Tensor
    ) -> RoutedGradients:
        """As `Kernels` says."""
        given = (routed.x, routed.gates, *weights)
        x, gates, *found = (torch.empty_like(tensor) for tensor in given)
        places = structures.ExpertsGradients(*pointers(grad, x, gates, *found))
        structure = structures.of_experts(routed, weights, saved, None)
        self._experts_backward(ctypes.byref(structure), ctypes.byref(places), torch.get_num_threads())
        return RoutedGradients(x, gates, (found[0], found[1]))


def build() -> Path:
    """Compile the library unless it is there. Raises DependencyMissingError where that cannot be done."""
    if not torch.cpu._is_avx2_supported():
        raise DependencyMissingError(
            "There are no training kernels for this processor: it has no AVX2.", "Let torch compute."
        )
    return LIBRARY.build()


@cache
def load(products: bool | None = None) -> Compiled | None:
    """The kernels, as `Compiled` says; None where they have not been built or cannot be loaded."""
    if not torch.cpu._is_avx2_supported() or not LIBRARY.path().exists():
        LOG.info(
            "the compiled training kernels are not there, torch computes, more slowly: `python -m trainer kernels` "
            "makes them"
        )
        return None
    try:
        return Compiled(LIBRARY.path(), products=products)
    except OSError as error:
        LOG.warning("the compiled training kernels cannot be loaded, torch computes, more slowly: %s", error)
        return None
