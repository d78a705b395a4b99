"""One step of the compiled search alone, so that it can be held to torch's."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.beams import Reached
from inference.engine.constraints import Constraints
from inference.engine.native.binding import Kernels, Limits
from inference.engine.native.search import limits_of, tree_of


class Search(ctypes.Structure):
    """`onerec::Search` of search.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("level", "beams", "held", "width", "binds", "first")),
        ("limits", ctypes.POINTER(Limits)),
        *((name, ctypes.c_void_p) for name in ("nodes", "scores", "leaves")),
        ("room", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
        ("logits_width", ctypes.c_int64),
        ("own", ctypes.c_void_p),
        ("own_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("parents", "taken", "reached", "worth")),
    )


class Standing(NamedTuple):
    """Where beams stand before a step."""

    level: int
    scores: Tensor  # float32 [B, W], -inf for dead ones
    nodes: Tensor  # int64 [R]
    held: Tensor  # int64 [R, k] leaves


def step(
    kernels: Kernels,
    constraints: Constraints,
    standing: Standing,
    logits: Tensor,
    width: int,
    *,
    own: Tensor | None = None,
) -> Reached:
    """The best continuations of beams from logits [R, K], as `Beams.step` says."""
    level, (scores, nodes, held) = standing.level, (tensor.contiguous() for tensor in standing[1:])
    (requests, beams), branch = scores.shape, constraints.index.trie.branches[level]
    width = min(width, beams * branch)
    parents, codes, reached = (torch.empty(requests * width, dtype=torch.int64) for _ in range(3))
    worth = torch.empty(requests, width)
    limits, tree = limits_of(constraints, requests), tree_of(constraints)
    search = Search(
        level=level,
        beams=beams,
        held=held.shape[1],
        width=width,
        binds=constraints.binds(level, held.shape[1]),
        limits=ctypes.pointer(limits[level]),
        nodes=nodes.data_ptr(),
        scores=scores.data_ptr(),
        leaves=held.data_ptr(),
        room=held.shape[1],
        logits=logits.data_ptr(),
        logits_width=logits.stride(0),
        own=None if own is None else own.data_ptr(),
        own_stride=1,
        parents=parents.data_ptr(),
        taken=codes.data_ptr(),
        reached=reached.data_ptr(),
        worth=worth.data_ptr(),
    )
    kernels.search(ctypes.byref(tree), ctypes.byref(search), branch, requests)
    return Reached(parents, codes, reached, worth)
