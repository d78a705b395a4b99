"""A step of the beam search by the compiled kernels: what `inference.engine.beams.Beams` does in torch.

In torch a step is some forty operations on small tensors, which take longer than the decoder does for one request.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from inference.engine.beams import Reached, Standing
from inference.engine.constraints import Constraints
from inference.engine.native import binding
from inference.engine.native.binding import Kernels


class NativeSearch:
    """The best continuations of a batch's beams, in a catalogue on the CPU."""

    def __init__(self, kernels: Kernels, constraints: Constraints) -> None:
        self._kernels, self._constraints = kernels, constraints
        index = constraints.index
        self._branches = index.trie.branches
        own = index.trie.tensors
        self._tree = binding.Tree(
            levels=index.trie.levels,
            starts=_all(own.starts),
            codes=_all(own.edge_codes),
            parents=_all(own.parents),
            bounds=_all(index.bounds),
            last_edges=_integers(own.last_edges),
            leaf_of_edge=_integers(own.leaf_of_edge),
        )

    def step(self, level: int, logits: Tensor, standing: Standing, width: int, *, own: Tensor | None = None) -> Reached:
        """The best continuations as `Beams.step` says, from logits [R, K]."""
        scores, nodes, held = (tensor.contiguous() for tensor in standing)
        requests, beams = scores.shape
        width = min(width, beams * self._branches[level])
        rows = requests * width
        parents, codes, reached = (torch.empty(rows, dtype=torch.int64) for _ in range(3))
        worth = torch.empty(requests, width)
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        step = binding.Search(
            level=level,
            beams=beams,
            held=held.shape[1],
            width=width,
            binds=self._constraints.binds(level, held.shape[1]),
            nodes=nodes.data_ptr(),
            scores=scores.data_ptr(),
            leaves=held.data_ptr(),
            logits=logits.data_ptr(),
            logits_width=logits.stride(0),
            parents=parents.data_ptr(),
            taken=codes.data_ptr(),
            reached=reached.data_ptr(),
            worth=worth.data_ptr(),
        )
        if own is not None:
            own = own.contiguous()
            step.own = own.data_ptr()
        self._constrain(step, level, requests)
        self._kernels.search(
            ctypes.byref(self._tree), ctypes.byref(step), self._branches[level], requests, torch.get_num_threads()
        )
        return Reached(parents, codes, reached, worth)

    def _constrain(self, step: binding.Search, level: int, requests: int) -> None:
        excluded, masked = self._constraints.excluded, self._constraints.masked
        if excluded is not None:
            keys, counts = excluded[level].keys, excluded[level].counts
            step.excluded, step.below = keys.data_ptr(), counts.data_ptr()
            step.excluded_count, step.stride = keys.shape[0], excluded[level].stride
        if masked is not None:
            allowed = masked[level]
            step.allowed = _integers(allowed)
            step.allowed_stride = allowed.shape[1] if len(allowed) == requests > 1 else 0


def _integers(tensor: Tensor) -> binding.Integers:
    return binding.Integers(tensor.data_ptr(), tensor.element_size())


def _all(tensors: Sequence[Tensor]) -> ctypes.Array[binding.Integers]:
    return (binding.Integers * len(tensors))(*map(_integers, tensors))
