"""Steps of the decoder for many beams by the compiled kernels; the same calls as `inference.engine.decoder.Decoder`.

A batch is packed: histories without padding, and rows of beams that are alive, so requests of different lengths and
beam widths cost what each costs alone. It is split by requests, a part for each of torch's threads. Nothing is shared
between parts but what is read, so the results do not depend on how many there are.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.memories import Encoded
from inference.engine.native import binding
from inference.engine.native.scratch import Scratch
from inference.engine.native.weights import NativeWeights

SCRATCH = Scratch()
"""Caches of batches."""


def encode(weights: NativeWeights, tokens: Tensor, mask: Tensor) -> list[Encoded]:
    """Encode `tokens` float32 [B, S, d] of which those where `mask` [B, S] is True lead, each request for itself."""
    config, kernels = weights.config, weights.kernels
    requests, positions, width = tokens.shape
    lengths = mask.sum(1, dtype=torch.int32)
    head_width = width // config.heads
    memories = [
        torch.empty(
            config.decoder_layers * 2 * config.heads * kernels.piece(length, head_width), dtype=kernels.recalled
        )
        for length in lengths.tolist()
    ]
    addresses = _addresses(memories)
    state = binding.State(lengths=lengths.data_ptr(), memory=ctypes.addressof(addresses))
    used = tokens.float().contiguous().clone()
    kernels.encode(
        ctypes.byref(weights.structure),
        ctypes.byref(state),
        used.data_ptr(),
        positions,
        requests,
        torch.get_num_threads(),
    )
    return [Encoded(length, memory) for length, memory in zip(lengths.tolist(), memories, strict=True)]


class DecodingState:
    """What the kernels keep of a batch from step to step: memories, and keys and values of what was generated."""

    def __init__(self, weights: NativeWeights, memories: Sequence[Encoded], *, max_rows: int, max_tokens: int) -> None:
        self._lengths = torch.tensor([memory.length for memory in memories], dtype=torch.int32)
        self._memories = [memory.states for memory in memories]
        self._addresses = _addresses(self._memories)
        shape = (weights.config.decoder_layers, max_tokens * max_rows, 2 * weights.config.d_model)
        kept = weights.kernels.kept
        cache = SCRATCH.take(math.prod(shape) * kept.itemsize, self)
        self.structure = binding.State(
            max_rows=max_rows,
            max_tokens=max_tokens,
            lengths=self._lengths.data_ptr(),
            memory=ctypes.addressof(self._addresses),
            cache=cache.data_ptr(),
        )


class NativeDecoder:
    """Decoding state of one batch of B requests with at most `max_rows` beams together."""

    packs = True
    """Rows that are not alive cost nothing."""

    def __init__(self, weights: NativeWeights, memories: Sequence[Encoded], *, max_rows: int, max_tokens: int) -> None:
        self._weights, self._requests = weights, len(memories)
        self._state = DecodingState(weights, memories, max_rows=max_rows, max_tokens=max_tokens)
        self.ancestors = torch.empty(self._requests, 0, dtype=torch.int32)
        """Cache rows [R, T] of each row's past: with what is in the cache, all that changes from step to step."""
        self._row = torch.arange(max_rows, dtype=torch.int32)
        self._all: dict[int, _Packed] = {}  # every row, by how many there are

    def advance(
        self,
        level: int,
        codes: Tensor,
        parents: Tensor | None,
        *,
        live: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Feed P tokens to each of R rows at once; the logits float32 [R, K] of `level` after the last one.

        `codes` int64 [R, P], 0 for a BOS. `parents` int64 [R] are the rows of the call before that the rows
        continue; None where they are the same. `live` int64, ascending, are the rows to feed, all of them if None;
        no later row may continue another one. `asked`, of these, are the rows whose logits are wanted, all live ones
        if None; those of other rows are 0.
        """
        rows, fed = codes.shape
        past, start = self.ancestors, self.ancestors.shape[1]
        continued = None if parents is None else parents.contiguous()
        self.ancestors = torch.empty(rows, start + fed, dtype=torch.int32)
        head, fed_codes = self._weights.heads[level], codes.contiguous()
        fed_rows = self._packed(live, rows)
        asked_rows = fed_rows if asked is None else self._packed(asked, rows)
        whole = asked_rows.rows.shape[0] == rows
        logits = torch.empty(rows, head.columns) if whole else torch.zeros(rows, head.columns)
        step = binding.Step(
            fed=fed,
            start=start,
            live=fed_rows.structure(),
            asked=asked_rows.structure(),
            codes=fed_codes.data_ptr(),
            rows_each=rows // self._requests,
            past=past.data_ptr(),
            parents=None if continued is None else continued.data_ptr(),
            ancestors=self.ancestors.data_ptr(),
            head=head.packed.data_ptr(),
            head_columns=head.columns,
            logits=logits.data_ptr(),
        )
        self._weights.kernels.advance(
            ctypes.byref(self._weights.structure),
            ctypes.byref(self._state.structure),
            ctypes.byref(step),
            self._requests,
            torch.get_num_threads(),
        )
        return logits[:, : self._weights.config.codes]

    def _packed(self, chosen: Tensor | None, rows: int) -> _Packed:
        if rows not in self._all:
            ends = torch.arange(self._requests + 1) * (rows // self._requests)
            self._all[rows] = _Packed(self._row[:rows], ends)
        every = self._all[rows]
        if chosen is None:
            return every
        return _Packed(chosen.to(torch.int32), torch.searchsorted(chosen, every.ends))


class _Packed(NamedTuple):
    """Some rows of a batch: row numbers int32, and where each request's begin among them, int64 [B + 1]."""

    rows: Tensor
    ends: Tensor

    def structure(self) -> binding.Chosen:
        return binding.Chosen(rows=self.rows.data_ptr(), ends=self.ends.data_ptr())


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
