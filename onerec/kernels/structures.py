"""What the compiled kernels are handed: their structures, and how tensors are seen through them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from onerec.model.backend import Attending, BranchGradients, Flow, Heads, Routed, Stream


class Norm(ctypes.Structure):
    """`onerec::Norm`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "width")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("x", "gain", "inverse")),
    )


class Scores(ctypes.Structure):
    """`onerec::Scores`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys")),
        ("scale", ctypes.c_float),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bias_batch", "bias_head", "bias_query")),
    )


class Place(ctypes.Structure):
    """`onerec::Heads`."""

    _fields_ = (("data", ctypes.c_void_p), ("row", ctypes.c_int64))

    @classmethod
    def of(cls, heads: Tensor) -> Place:
        """Heads [B, T, H, Dh]; of one position the stride means nothing."""
        return cls(heads.data_ptr(), heads.stride(int(heads.shape[1] > 1)))


class Attention(ctypes.Structure):
    """`onerec::Attention`."""

    _fields_ = (
        ("scores", Scores),
        ("width", ctypes.c_int64),
        *((name, Place) for name in Heads._fields),
        ("kept", ctypes.c_void_p),
    )


class AttentionGradients(ctypes.Structure):
    """`onerec::AttentionGradients`."""

    _fields_ = tuple((name, Place) for name in ("out", *Heads._fields))


class Residual(ctypes.Structure):
    """`onerec::Stream`."""

    _fields_ = (
        ("norm", Norm),
        ("added_kind", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("added", "total")),
    )


class ResidualGradients(ctypes.Structure):
    """`onerec::StreamGradients`."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("grad", "grad_total", "grad_x", "grad_added", "grad_gain"))


class FeedForward(ctypes.Structure):
    """`onerec::FeedForward`."""

    _fields_ = (
        ("stream", Residual),
        ("hidden", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("w_in", "w_out", "gated", "out")),
    )


class FeedForwardGradients(ctypes.Structure):
    """`onerec::FeedForwardGradients`."""

    _fields_ = (("stream", ResidualGradients), *((name, ctypes.c_void_p) for name in ("w_in", "w_out")))


class AttentionBranch(ctypes.Structure):
    """`onerec::AttentionBranch`."""

    _fields_ = (
        ("stream", Residual),
        ("attention", Attention),
        *((name, ctypes.c_void_p) for name in ("w_own", "w_memory", "w_out", "memory")),
        *((name, ctypes.c_void_p) for name in ("projected", "memory_projected", "attended", "out")),
    )


class AttentionBranchGradients(ctypes.Structure):
    """`onerec::AttentionBranchGradients`."""

    _fields_ = (
        ("stream", ResidualGradients),
        *((name, ctypes.c_void_p) for name in ("w_own", "w_memory", "w_out", "memory")),
    )


class Experts(ctypes.Structure):
    """`onerec::Experts`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "width", "hidden", "experts", "active")),
        *((name, ctypes.c_void_p) for name in ("x", "gates", "chosen", "w_in", "w_out", "load", "source", "slots")),
        *((name, ctypes.c_void_p) for name in ("gated", "outputs", "mixed")),
    )


class ExpertsGradients(ctypes.Structure):
    """`onerec::ExpertsGradients`."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("grad", "x", "gates", "w_in", "w_out"))


def of_experts(
    routed: Routed, weights: tuple[Tensor, Tensor], saved: tuple[Tensor, ...], mixed: Tensor | None
) -> Experts:
    """How the kernels see experts."""
    experts, hidden, width = weights[1].shape
    sizes = (len(routed.x), width, hidden, experts, routed.chosen.shape[1])
    return Experts(*sizes, *pointers(*routed, *weights, *saved, mixed))


def low(*shape: int) -> Tensor:
    """An empty one, in bfloat16."""
    return torch.empty(*shape, dtype=torch.bfloat16)


def pointers(*tensors: Tensor | None) -> list[int | None]:
    """Where tensors lie; None for those that are not there."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def summed(stream: Stream) -> tuple[Tensor, Tensor]:
    """Where the stream's sum goes, itself where nothing is added, and its norm's factors."""
    return stream.x if stream.added is None else torch.empty_like(stream.x), stream.x.new_empty(len(stream.x))


def of_stream(stream: Stream, total: Tensor, inverse: Tensor) -> Residual:
    """How a branch sees the stream."""
    x, gain, inverses, added, sums = pointers(stream.x, stream.gain, inverse, stream.added, total)
    norm = Norm(*stream.x.shape, stream.epsilon, x, gain, inverses)
    return Residual(norm, 0 if stream.added is None else kind(stream.added), added, sums)


def empty_gradients(stream: Stream, weights: tuple[Tensor, ...], memory: Tensor | None, flow: Flow) -> BranchGradients:
    """Empty ones."""
    x = torch.empty_like(stream.x)
    return BranchGradients(
        x,
        x if flow.added_dtype == x.dtype else torch.empty_like(x, dtype=flow.added_dtype),
        torch.empty_like(stream.gain),
        tuple(torch.empty_like(weight) for weight in weights),
        None if memory is None else torch.empty_like(memory),
    )


def of_flow(found: BranchGradients, flow: Flow) -> ResidualGradients:
    """How a branch's backward sees what flows into it and where the stream's gradients go."""
    added = None if found.added is found.x else found.added
    return ResidualGradients(*pointers(flow.out, flow.total, found.x, added, found.gain))


def of_attention_branch(
    residual: Residual,
    weights: tuple[Tensor, ...],
    attending: Attending,
    saved: tuple[Tensor, ...],
    out: Tensor | None,
) -> tuple[Tensor | None, AttentionBranch]:
    """How the kernels see a branch, and the bias that they point to."""
    own, *memory_weight, last = weights
    _, projected, attended, kept, *memory_projected = saved
    batch, heads, memory = attending.batch, attending.heads, attending.memory
    width = own.shape[1]
    whole = [part.view(batch, len(part) // batch, -1) for part in (projected, *memory_projected)]
    parts = [each for part in whole for each in torch.split(part, width, dim=-1)]
    given = Heads(*(part.view(*part.shape[:2], heads, -1) for part in parts))
    bias, attention = of_attention(given, attending.bias, given.query.shape[-1] ** -0.5, kept)
    addresses = pointers(own, memory_weight[0] if memory_weight else None, last, memory, projected)
    rest = pointers(memory_projected[0] if memory_projected else None, attended, out)
    return bias, AttentionBranch(residual, attention, *addresses, *rest)


def kind(tensor: Tensor) -> int:
    """How the kernels tell dtypes."""
    return int(tensor.dtype == torch.bfloat16)


def of_scores(shape: Sequence[int], bias: Tensor | None, scale: float) -> tuple[Tensor | None, Scores]:
    """How the kernels see scores of this shape, and the bias that they point to."""
    if bias is None:
        return None, Scores(*shape, scale, None, 0, 0, 0)
    wide = bias.float().expand(*shape)
    if wide.stride(-1) != 1 and wide.shape[-1] > 1:  # one number for all keys
        wide = wide.contiguous()
    return wide, Scores(*shape, scale, wide.data_ptr(), *wide.stride()[:3])


def of_attention(heads: Heads, bias: Tensor | None, scale: float, kept: Tensor) -> tuple[Tensor | None, Attention]:
    """The same of attention."""
    batch, queries, count, width = heads.query.shape
    with_bias, scores = of_scores((batch, count, queries, heads.key.shape[1]), bias, scale)
    return with_bias, Attention(scores, width, *map(Place.of, heads), kept.data_ptr())
