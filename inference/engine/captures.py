"""Steps of the torch decoder as CUDA graphs: captured once for a shape of batch, then replayed.

A step is some hundred small kernels, and starting one from Python takes longer than running it. A graph starts them
together, but it is bound to memory: that of the weights, and that of what it reads and writes. So

* the weights of a further version in the same modules are copied to the place of the first one's;
* batches are padded to few shapes: requests to a power of two, histories to one of positions or to the longest;
* a shape that comes once is decoded without a graph. Capturing takes some ten milliseconds a step.

Search, constraints and selection depend on the catalogue, which changes every second, and stay outside.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from inference.engine.decoder import ALIGNED, Decoder
from inference.engine.prepared import Prepared, tensors_of
from onerec.model.onerec import Memory, OneRec
from onerec.model.presets import ModelConfig
from onerec.model.sizes import encoder_tokens

LOG = logging.getLogger(__name__)
CAPTURED_FROM = 2
"""A shape's graphs are made when it comes for the so many-th time."""
KEPT = 8
"""Shapes whose graphs are kept, those used last."""
SHORTEST = 64
"""Positions of a memory, at least."""


class Captures:
    """The graphs of the decoders of successive versions: share it as the engines' indexes are shared."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[OneRec, dict[torch.dtype, CapturedDecoder]] = WeakKeyDictionary()

    def of(self, model: OneRec, weights: Prepared) -> CapturedDecoder:
        """Decodes with `weights`, which are `model`'s. Void for the version that the same modules held before."""
        known = self._of.setdefault(model, {})
        dtype = weights.embeddings.dtype
        if dtype in known:
            known[dtype].renew(weights)
        else:
            known[dtype] = CapturedDecoder(weights, model.config)
        return known[dtype]


class CapturedDecoder:
    """One version's weights at a place of their own, with the graphs that read them. For one thread at a time."""

    def __init__(self, weights: Prepared, config: ModelConfig) -> None:
        self.weights, self._heads = weights, config.heads
        self._longest = -(-encoder_tokens(config) // ALIGNED) * ALIGNED
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(weights.embeddings.device)  # type: ignore[no-untyped-call]
        self._seen: Counter[Hashable] = Counter()
        self._plans: OrderedDict[Hashable, Replayed] = OrderedDict()
        self._failed = False

    @property
    def graphs(self) -> int:
        """How many steps have been captured and are kept."""
        return sum(plan.captured for plan in self._plans.values())

    @torch.no_grad()
    def renew(self, weights: Prepared) -> None:
        """Put other weights of the same shapes in the place of those that are there."""
        for place, tensor in zip(tensors_of(self.weights), tensors_of(weights), strict=True):
            place.copy_(tensor)

    def begin(self, memory: Memory, widest: int, plan: Hashable, max_tokens: int) -> Decoder | Replayed:
        """Decoding state of a batch of at most `widest` beams a request, whose steps are those of `plan`."""
        requests, positions, _ = memory.states.shape
        shape = (_power_of_two(requests), min(max(SHORTEST, _power_of_two(positions)), self._longest))
        key = (shape, widest, plan)
        self._seen[key] += 1
        if self._seen[key] < CAPTURED_FROM or self._failed:
            return Decoder(self.weights, memory, self._heads, requests * widest, max_tokens)
        if key not in self._plans:
            decoder = partial(
                Decoder, self.weights, heads=self._heads, max_rows=shape[0] * widest, max_tokens=max_tokens
            )
            self._plans[key] = Replayed(self.weights, shape, widest, new_decoder=decoder, capture=self._capture)
            if len(self._plans) > KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        self._plans[key].begin(memory)
        return self._plans[key]

    def _capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """The kernels that `work` starts, none of which runs; None where they cannot be captured.

        After a failure torch's allocator takes itself to be still capturing, so it is not tried again.
        """
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                # thread_local: another thread, which loads the next version, may allocate and copy meanwhile. What it
                # must not do is wait for the whole device.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self._failed = True
            LOG.warning("decoding steps cannot be captured as CUDA graphs, from here on they are not: %s", error)
            return None
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph


class _Step(NamedTuple):
    """A captured step."""

    key: tuple[int, int, int, bool]
    """Level, rows, tokens a row, whether there are parents."""
    graph: torch.cuda.CUDAGraph
    ancestors: Tensor
    """The decoder's state after it, which later steps read."""


class Replayed:
    """Decoding state of batches of one shape, with the buffers that its graphs read and write."""

    packs = False

    def __init__(
        self,
        weights: Prepared,
        shape: tuple[int, int],
        widest: int,
        *,
        new_decoder: Callable[[Memory], Decoder],
        capture: Callable[[Callable[[], None]], torch.cuda.CUDAGraph | None],
    ) -> None:
        """Of `shape`, requests and positions of their memory, with at most `widest` beams each."""
        (self._requests, positions), rows = shape, shape[0] * widest
        like = weights.embeddings
        self._memory = Memory(
            like.new_zeros(self._requests, positions, weights.memory_width),
            torch.zeros(self._requests, positions, dtype=torch.bool, device=like.device),
        )
        self._codes = {fed: torch.zeros(rows, fed, dtype=torch.int64, device=like.device) for fed in (1, 2)}
        self._parents = torch.zeros(rows, dtype=torch.int64, device=like.device)
        self._logits = torch.zeros(rows, weights.heads[0].shape[1], device=like.device)
        self._new_decoder, self._capture = new_decoder, capture
        self._decoder: Decoder | None = None
        self._start: torch.cuda.CUDAGraph | None = None
        self._first_state: Tensor | None = None
        self._steps: list[_Step] = []
        self._at = self._used = 0
        self._eager = False

    @property
    def captured(self) -> int:
        """How many steps."""
        return len(self._steps)

    def begin(self, memory: Memory) -> None:
        """A batch's memory, of at most this shape."""
        requests, positions, _ = memory.states.shape
        self._used, self._at, self._eager = requests, 0, False
        self._memory.mask.zero_()
        self._memory.mask[:, 0] = True  # requests that only fill up have a memory, too: nothing is divided by 0
        self._memory.mask[:requests, :positions].copy_(memory.mask)
        self._memory.states[:requests, :positions].copy_(memory.states)
        if self._start is None:
            self._restart()  # as in `_extend`: once before it is captured
            self._start = self._capture(self._restart)
        if self._start is not None:
            self._start.replay()
        else:
            self._restart()
            self._eager = True

    def advance(
        self,
        level: int,
        codes: Tensor,
        parents: Tensor | None,
        *,
        live: Tensor | None = None,  # noqa: ARG002 - all rows are decoded
        asked: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """As `Decoder.advance`; the logits are void after the next call."""
        given, fed = codes.shape
        rows = given // self._used * self._requests
        _fill(self._codes[fed][:rows], codes)
        if parents is not None:
            _fill(self._parents[:rows], parents)
        key = (level, rows, fed, parents is not None)
        if self._eager:
            self._work(key)
        elif self._at < len(self._steps) and self._steps[self._at].key == key:
            self._steps[self._at].graph.replay()
        else:
            self._extend(key)
        self._at += 1
        return self._logits[:given]

    def _restart(self) -> None:
        self._decoder = self._new_decoder(self._memory)
        self._first_state = self._decoder.ancestors

    def _work(self, key: tuple[int, int, int, bool]) -> None:
        level, rows, fed, continued = key
        assert self._decoder is not None
        parents = self._parents[:rows] if continued else None
        self._logits[:rows].copy_(self._decoder.advance(level, self._codes[fed][:rows], parents))

    def _extend(self, key: tuple[int, int, int, bool]) -> None:
        """Do the step, then capture and replay it: the first time loads kernels, which a graph cannot do."""
        del self._steps[self._at :]
        assert self._decoder is not None
        assert self._first_state is not None
        before = self._steps[-1].ancestors if self._steps else self._first_state
        self._decoder.ancestors = before
        self._work(key)
        after = self._decoder.ancestors
        self._decoder.ancestors = before
        graph = self._capture(lambda: self._work(key))
        if graph is None:
            self._decoder.ancestors, self._eager = after, True
            return
        self._steps.append(_Step(key, graph, self._decoder.ancestors))
        graph.replay()


def _fill(buffer: Tensor, values: Tensor) -> None:
    """The values, and zeros for rows that only fill up."""
    buffer[: len(values)].copy_(values)
    if len(values) < len(buffer):
        buffer[len(values) :].zero_()


def _power_of_two(number: int) -> int:
    """The least one that is not below."""
    return 1 << (number - 1).bit_length()
