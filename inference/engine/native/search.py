"""The sessions of a batch by the compiled kernels, in one call: what `inference.engine.beams.Beams` does in torch.

In torch a step of the search is some forty operations on small tensors, which take longer than the decoder does for
one request.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.constraints import Constraints
from inference.engine.generated import Generated
from inference.engine.memories import Encoded
from inference.engine.native import binding
from inference.engine.native.decoder import DecodingState
from inference.engine.native.weights import NativeWeights


class Found(NamedTuple):
    """What a search comes back with."""

    generated: Generated
    decoded: Tensor
    """Int64 [B]: tokens that were fed to the decoder for each request."""


class Widths(NamedTuple):
    """Beams that a search keeps."""

    widest: list[list[int]]
    """[m, L]: of any request after each code."""
    own: Tensor | None
    """Int64 [B, m, L]: each request's; None where all are alike."""


def generate(
    weights: NativeWeights, memories: Sequence[Encoded], constraints: Constraints, widths: Widths, often_open: float
) -> Found:
    """The most probable sessions of B requests.

    A level whose nodes have more than `often_open` children on average is decoded without a look at which codes the
    trie decides.
    """
    requests, trie = len(memories), constraints.index.trie
    begin, kept = _counts(widths.widest, trie.branches)
    slots, levels = len(kept), trie.levels
    most, width = max(map(max, kept)), kept[-1][-1]
    state = DecodingState(weights, memories, max_rows=requests * most, max_tokens=slots * (levels + 1))
    decided = [level > 0 and trie.mean_branch(level) <= often_open for level in range(levels)]
    binds = [constraints.binds(level, slot) for slot in range(slots) for level in range(levels)]
    limits, tree = limits_of(constraints, requests), tree_of(constraints)
    heads = [binding.Head(packed=head.packed.data_ptr(), columns=head.columns) for head in weights.heads]
    own = None if widths.own is None else widths.own.contiguous()
    supply = constraints.supply.expand(requests).contiguous()
    plan = binding.Plan(
        slots=slots,
        most=most,
        begin=_numbers(begin),
        widths=_numbers([width for slot in kept for width in slot]),
        own=None if own is None else own.data_ptr(),
        binds=_numbers(binds),
        decided=_numbers(decided),
        branches=_numbers(trie.branches),
        supply=supply.data_ptr(),
        limits=limits,
        heads=(binding.Head * levels)(*heads),
    )
    found = Generated(
        sessions=torch.empty(requests, width, slots, dtype=torch.int64),
        log_probs=torch.empty(requests, width),
        item_log_probs=torch.empty(requests, width, slots),
        first_leaves=torch.empty(requests, kept[0][-1], dtype=torch.int64),
        first_log_probs=torch.empty(requests, kept[0][-1]),
    )
    decoded = torch.empty(requests, dtype=torch.int64)
    weights.kernels.generate(
        ctypes.byref(weights.structure),
        ctypes.byref(tree),
        ctypes.byref(state.structure),
        ctypes.byref(plan),
        ctypes.byref(binding.Sessions(*(tensor.data_ptr() for tensor in (*found, decoded)))),
        requests,
        torch.get_num_threads(),
    )
    return Found(found, decoded)


def _counts(widest: list[list[int]], branches: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Beams of a request before the first code of each slot, [m], and after each code, [m, L].

    There are never more than there are continuations.
    """
    begin, kept, beams = list[int](), list[list[int]](), 1
    for slot, widths in enumerate(widest):
        beams = beams if slot == 0 else min(beams, max(widths))
        begin.append(beams)
        after = list[int]()
        for width, branch in zip(widths, branches, strict=True):
            beams = min(width, beams * branch)
            after.append(beams)
        kept.append(after)
    return begin, kept


def tree_of(constraints: Constraints) -> binding.Tree:
    """The catalogue as the kernels take it; points into the trie."""
    index = constraints.index
    own = index.trie.tensors
    return binding.Tree(
        levels=index.trie.levels,
        starts=_all(own.starts),
        codes=_all(own.edge_codes),
        parents=_all(own.parents),
        bounds=_all(index.bounds),
        last_edges=_integers(own.last_edges),
        leaf_of_edge=_integers(own.leaf_of_edge),
    )


def limits_of(constraints: Constraints, requests: int) -> ctypes.Array[binding.Limits]:
    """What requests rule out, by level; points into the constraints."""
    levels = (binding.Limits * constraints.index.trie.levels)()
    for level, limits in enumerate(levels):
        if constraints.excluded is not None:
            excluded = constraints.excluded[level]
            limits.excluded, limits.below = excluded.keys.data_ptr(), excluded.counts.data_ptr()
            limits.count, limits.stride = excluded.keys.shape[0], excluded.stride
        if constraints.masked is not None:
            allowed = constraints.masked[level]
            limits.allowed = _integers(allowed)
            limits.allowed_stride = allowed.shape[1] if len(allowed) == requests > 1 else 0
    return levels


def _numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _integers(tensor: Tensor) -> binding.Integers:
    return binding.Integers(tensor.data_ptr(), tensor.element_size())


def _all(tensors: Sequence[Tensor]) -> ctypes.Array[binding.Integers]:
    return (binding.Integers * len(tensors))(*map(_integers, tensors))
