"""Steps of the decoder for many beams by the compiled kernels; the same calls as `inference.engine.decoder.Decoder`.

A batch is split by requests, a part for each of torch's threads. Nothing is shared between parts but what is read,
so the results do not depend on how many there are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from inference.engine.native import binding
from inference.engine.native.weights import NativeWeights, whole_units


class NativeDecoder:
    """Decoding state of one batch of B requests with at most `max_rows` beams together."""

    def __init__(self, weights: NativeWeights, tokens: Tensor, mask: Tensor, *, max_rows: int, max_tokens: int) -> None:
        """Encode `tokens` float32 [B, S, d] of the encoder, of which those where `mask` [B, S] is True lead."""
        self._weights, config = weights, weights.config
        self._requests, positions, width = tokens.shape
        self._lengths = mask.sum(1, dtype=torch.int32)
        blocks, kernels = config.decoder_layers, weights.kernels
        head_width, space = width // config.heads, whole_units(int(self._lengths.max()))
        piece = max(kernels.packed_elements(head_width, space), kernels.packed_elements(space, head_width))
        self._memory = torch.empty(2, blocks, self._requests, config.heads * piece, dtype=kernels.dtype)
        self._cache = torch.empty(blocks, max_tokens * max_rows, 2 * width, dtype=kernels.kept)
        self._ancestors = torch.empty(self._requests, 0, dtype=torch.int32)  # [R, T] cache rows
        self._row = torch.arange(max_rows, dtype=torch.int32)
        self._max_rows = max_rows
        self._state = binding.State(
            piece=piece,
            max_rows=max_rows,
            max_tokens=max_tokens,
            lengths=self._lengths.data_ptr(),
            keys=self._memory[0].data_ptr(),
            values=self._memory[1].data_ptr(),
            cache=self._cache.data_ptr(),
            requests=self._requests,
        )
        used = tokens.float().contiguous().clone()
        self._each_part(
            lambda first, last: weights.kernels.encode(
                ctypes.byref(weights.structure), ctypes.byref(self._state), used.data_ptr(), positions, first, last
            )
        )

    def advance(self, level: int, codes: Tensor, parents: Tensor | None) -> Tensor:
        """Feed P tokens to each of R rows at once; the logits float32 [R, K] of `level` after the last one.

        `codes` int64 [R, P], 0 for a BOS. `parents` int64 [R] are the rows of the call before that the rows
        continue; None where they are the same.
        """
        rows, fed = codes.shape
        start = self._ancestors.shape[1]
        past = self._ancestors if parents is None else self._ancestors.index_select(0, parents)
        new = [self._row[:rows] + (start + step) * self._max_rows for step in range(fed)]
        self._ancestors = torch.cat([past, torch.stack(new, dim=1)], dim=1)
        head, fed_codes = self._weights.heads[level], codes.contiguous()
        logits = torch.empty(rows, head.columns)
        step = binding.Step(
            beams=rows // self._requests,
            fed=fed,
            start=start,
            codes=fed_codes.data_ptr(),
            ancestors=self._ancestors.data_ptr(),
            head=head.packed.data_ptr(),
            head_columns=head.columns,
            logits=logits.data_ptr(),
        )
        self._each_part(
            lambda first, last: self._weights.kernels.advance(
                ctypes.byref(self._weights.structure), ctypes.byref(self._state), ctypes.byref(step), first, last
            )
        )
        return logits[:, : self._weights.config.codes]

    def _each_part(self, work: Callable[[int, int], None]) -> None:
        """Run `work(first, last)` for parts of the requests, side by side (ctypes gives up the GIL)."""
        parts = min(torch.get_num_threads(), self._requests)
        if parts == 1:
            work(0, self._requests)
            return
        ends = [self._requests * part // parts for part in range(parts + 1)]
        others = [_threads(parts - 1).submit(work, ends[part], ends[part + 1]) for part in range(1, parts)]
        work(0, ends[1])
        for other in others:
            other.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="decode")
