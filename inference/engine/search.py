"""Session-wise generation: [BOS s1 .. sL] for each of m items, over the items of a catalogue only.

At each level the children of a beam's node are gathered from the trie BEFORE anything is chosen, and the softmax
runs over them alone; so every returned item exists, and the log-probabilities are exactly those of
`onerec.model.likelihood.token_log_probs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from inference.engine.beams import OFTEN_OPEN, Beams
from inference.engine.captures import CapturedDecoder, Captures
from inference.engine.constraints import Constraints, Limits
from inference.engine.decoder import Decoder
from inference.engine.fixed_constraints import FixedConstraints
from inference.engine.generated import Generated
from inference.engine.index import IndexCache
from inference.engine.memories import Encoded, MemoryCache, content_keys
from inference.engine.native.binding import Kernels
from inference.engine.native.calibration import choose
from inference.engine.native.check import AUTO, TORCH, usable
from inference.engine.native.decoder import NativeDecoder, encode
from inference.engine.native.search import Widths, generate
from inference.engine.native.weights import NativeWeights
from inference.engine.prepared import Prepared
from inference.engine.selection import BestOfAll, OneOfEach, Selection
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import Memory, OneRec
from onerec.model.precision import product_dtype


class Steps(Protocol):
    """The decoder of one batch: in torch, as CUDA graphs or by compiled kernels."""

    packs: bool
    """Whether rows that are left out cost nothing."""

    def advance(
        self,
        level: int,
        codes: Tensor,
        parents: Tensor | None,
        *,
        live: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Logits float32 [R, K] after the tokens `codes` [R, P] of rows that continue `parents` [R].

        Only the rows `live` need be fed, and only the logits of the rows `asked` are looked at; None for all.
        """


class Engine:
    """Decodes with one version of the model. Cheap to make: a copy of the decoder's weights, laid out for decoding.

    By default the compiled kernels of `inference.engine.native` run where they are there and fit: the kind that is
    fastest here (`native.calibration`), or that `kernels` names. Otherwise, and with `native=False`, `kernels="torch"`
    or a `dtype`, torch decodes; `dtype` is then the precision of the decoder's products and its
    residual stream, by default that of the encoder's products (see onerec.model.precision). A model on a CUDA device
    is decoded by torch there, by default in bfloat16, its steps as CUDA graphs. Softmax, log-probabilities and norms
    are float32 always. `precise` asks for log-probabilities as the trainer computes them: no lower precision than the
    model's is then used. `indexes` and `captures` are shared between the engines of successive versions. Of encoded
    histories up to `memory_bytes` are kept for requests with the same history: they are this version's and go with
    the engine.
    """

    def __init__(
        self,
        model: OneRec,
        *,
        dtype: torch.dtype | None = None,
        indexes: IndexCache | None = None,
        captures: Captures | None = None,
        native: bool = True,
        kernels: str = AUTO,
        precise: bool = False,
        memory_bytes: int = 0,
    ) -> None:
        self.config = model.config
        self.memories = MemoryCache(memory_bytes) if memory_bytes else None
        self.device = model.bos.device
        self.often_open = OFTEN_OPEN
        """Children of the trie's nodes, on average, above which a code is decoded without a look at its siblings."""
        self._model = model.eval()
        self._indexes = indexes or IndexCache()
        own = product_dtype(model.config.bf16, model.bos.detach())
        compiled = native and kernels != TORCH and dtype is None
        chosen: Kernels | None = None
        if compiled and self.device.type == "cpu":
            kinds = None if kernels == AUTO else (kernels,)
            passing = usable(model.config, own if precise else None, kinds)
            chosen = choose(model.config, passing, own, named=kinds is not None)
        self.kernels = TORCH if chosen is None else chosen.kind
        """What decodes: torch, or which of the compiled kernels."""
        self.native = chosen is not None
        """Whether the compiled kernels decode."""
        self._captured: CapturedDecoder | None = None
        self._weights: NativeWeights | Prepared
        if chosen is not None:
            self.dtype = chosen.dtype
            self._weights = NativeWeights(model, chosen)
        elif self.device.type == "cuda":
            self.dtype = dtype or (torch.bfloat16 if compiled and not precise else own)
            self._captured = (captures or Captures()).of(model, Prepared.of(model, self.dtype))
            self._weights = self._captured.weights
        else:
            self.dtype = dtype or own
            self._weights = Prepared.of(model, self.dtype)

    def generate(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        *,
        beam_width: int | Sequence[int] | Tensor | None = None,
        items: int | None = None,
        exclude: Sequence[Tensor] | None = None,
        allowed: Tensor | None = None,
    ) -> Generated:
        """The most probable sessions of `items` items (m by default) of each of B requests, by beam search.

        `beam_width` is one width or one for each slot, the paper's by default (the preset's); or an int64 tensor
        [B, m] of each request's own, or [B, m, L] with one after each code, where B may be 1 for all alike. Widths
        cannot grow from slot to slot. A narrower request has sessions of log-probability -inf in the others' places,
        and costs no more for their being wider.

        `exclude` (leaves for each request) and `allowed` (bool [N] or [B, N]) are request constraints; what they
        guarantee is said in `inference.engine.constraints`. Raises ValueError for sizes that contradict.
        """
        widths = self._widths(self.config.beam_width if beam_width is None else beam_width, items)
        return self._run(history, catalogue, widths, BestOfAll(), Limits(exclude, allowed))

    def rank(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        *,
        beam_width: int | None = None,
        exclude: Sequence[Tensor] | None = None,
        allowed: Tensor | None = None,
    ) -> Generated:
        """The most probable next items only: `generate` of one item, a sixth of the work of five."""
        return self.generate(history, catalogue, beam_width=beam_width, items=1, exclude=exclude, allowed=allowed)

    def sample(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        count: int,
        *,
        temperature: float = 1.0,
        items: int | None = None,
        exclude: Sequence[Tensor] | None = None,
        allowed: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """`count` sessions of each request drawn from the model, code by code, at `temperature`; duplicates occur.

        Log-probabilities are those at temperature 1. A code that leads only to items that are excluded or already
        in the session is never drawn; its probability goes to its siblings.
        """
        widths = self._widths(count, items)
        return self._run(history, catalogue, widths, OneOfEach(temperature, generator), Limits(exclude, allowed))

    def _widths(self, width: int | Sequence[int] | Tensor, items: int | None) -> Tensor:
        """Beams of each request after each code: int64 [B or 1, m, L]."""
        slots, levels = self.config.session_items if items is None else items, self.config.levels
        if not 1 <= slots <= self.config.session_items:
            raise ValueError(f"A session has 1 to {self.config.session_items} items, not {slots}.")
        if isinstance(width, Tensor):
            given = width
        else:
            given = torch.tensor([width] * slots if isinstance(width, int) else list(width))
        widths = given.unsqueeze(0) if given.dim() == 1 else given
        widths = widths.unsqueeze(-1).expand(-1, -1, levels) if widths.dim() == 2 else widths
        fits = widths.dim() == 3 and widths.shape[1] >= slots and widths.shape[2] == levels
        widths = widths[:, :slots]
        if not fits or int(widths.min()) < 1 or bool((widths[:, 1:, -1] > widths[:, :-1, -1]).any()):
            raise ValueError(f"Beam widths {width} must be {slots} positive numbers that do not grow.")
        return widths

    @torch.inference_mode()
    def _run(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        widths: Tensor,
        selection: Selection,
        limits: Limits,
    ) -> Generated:
        requests = len(history)
        index = self._indexes.get(catalogue.trie, self.device)
        constraints = (FixedConstraints if self._captured else Constraints).of(index, requests, limits)
        if len(widths) not in {1, requests}:
            raise ValueError(f"{len(widths)} rows of beam widths for {requests} requests.")
        own = widths.to(self.device) if len(widths) > 1 else None
        asked = Widths(widths.amax(0).tolist(), own)
        if isinstance(self._weights, NativeWeights) and isinstance(selection, BestOfAll):
            return generate(self._weights, self._remembered(history), constraints, asked, self.often_open).generated
        return self._by_steps(history, asked, selection, constraints)

    def _by_steps(
        self, history: HistoryBatch, widths: Widths, selection: Selection, constraints: Constraints
    ) -> Generated:
        """A search in torch, on whatever decodes."""
        widest, own = widths
        requests, levels, slots = len(history), self.config.levels, len(widest)
        decoder = self._decoder(history.to(self.device), widest, slots * (levels + 1))
        beams = Beams(requests, constraints.index, constraints, selection, slots=slots, often_open=self.often_open)
        codes = torch.zeros(requests, 1, dtype=torch.int64, device=self.device)  # BOS
        parents: Tensor | None = None
        for slot in range(slots):
            for level in range(levels):
                asked = beams.undecided(level) if decoder.packs else None
                ends = slot + 1 == slots and level + 1 == levels  # nothing follows: what is decided need not be fed
                live = asked if ends or not decoder.packs else beams.live()
                logits = decoder.advance(level, codes, parents, live=live, asked=asked)
                mine = None if own is None else own[:, slot, level]
                parents, chosen = beams.step(level, logits, widest[slot][level], mine)
                codes = chosen.unsqueeze(1)
            beams.finish_slot(slot)
            kept: Tensor | None = None
            if slot + 1 < slots:
                mine = None if own is None else own[:, slot + 1].amax(-1)
                kept = beams.narrow(max(widest[slot + 1]), mine)
            if kept is not None and parents is not None:
                parents, codes = parents[kept], codes[kept]
            codes = torch.nn.functional.pad(codes, (0, 1))  # the last code and the next item's BOS go in together
        return beams.generated()

    def _decoder(self, history: HistoryBatch, widest: list[list[int]], max_tokens: int) -> Steps:
        beams = max(map(max, widest))
        max_rows = len(history) * beams
        if isinstance(self._weights, NativeWeights):
            memories = self._remembered(history)
            return NativeDecoder(self._weights, memories, max_rows=max_rows, max_tokens=max_tokens)
        memory = self._model.encode(history) if self.memories is None else _padded(self._remembered(history))
        if self._captured is not None:
            return self._captured.begin(memory, beams, tuple(map(tuple, widest)), max_tokens)
        return Decoder(self._weights, memory, self.config.heads, max_rows=max_rows, max_tokens=max_tokens)

    def _remembered(self, history: HistoryBatch) -> list[Encoded]:
        """Encoded requests; those that the cache holds are not encoded again."""
        if self.memories is None:
            return self._encoded(history)
        keys = content_keys(history)
        found = [self.memories.get(key) for key in keys]
        missing = [row for row, encoded in enumerate(found) if encoded is None]
        if missing:
            rows = torch.tensor(missing, device=history.codes.device)
            fresh = self._encoded(HistoryBatch(history.codes[rows], history.labels[rows], history.mask[rows]))
            for row, encoded in zip(missing, fresh, strict=True):
                self.memories.put(keys[row], encoded)
                found[row] = encoded
        return [encoded for encoded in found if encoded is not None]

    def _encoded(self, history: HistoryBatch) -> list[Encoded]:
        if isinstance(self._weights, NativeWeights):
            return encode(self._weights, *self._model.encoder_inputs(history))
        states, mask = self._model.encode(history)
        lengths = mask.sum(1).tolist()
        return [Encoded(length, row[:length].clone()) for length, row in zip(lengths, states, strict=True)]


def _padded(memories: Sequence[Encoded]) -> Memory:
    """Encoder states of several requests as one batch."""
    states = torch.nn.utils.rnn.pad_sequence([memory.states for memory in memories], batch_first=True)
    lengths = torch.tensor([memory.length for memory in memories], device=states.device)
    return Memory(states, torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1))
