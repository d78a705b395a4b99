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

from inference.engine.beams import Beams
from inference.engine.constraints import Constraints, Limits
from inference.engine.decoder import Decoder
from inference.engine.generated import Generated
from inference.engine.index import IndexCache
from inference.engine.native.check import usable
from inference.engine.native.decoder import NativeDecoder
from inference.engine.native.weights import NativeWeights
from inference.engine.prepared import Prepared
from inference.engine.selection import BestOfAll, OneOfEach, Selection
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.precision import product_dtype


class Steps(Protocol):
    """The decoder of one batch, in torch or by compiled kernels."""

    def advance(self, level: int, codes: Tensor, parents: Tensor | None) -> Tensor:
        """Logits float32 [R, K] after the tokens `codes` [R, P] of rows that continue `parents` [R]."""


class Engine:
    """Decodes with one version of the model. Cheap to make: a copy of the decoder's weights, laid out for decoding.

    By default the compiled kernels of `inference.engine.native` run where they are there and fit. Otherwise, and with
    `native=False` or a `dtype`, torch decodes; `dtype` is then the precision of the decoder's products and its
    residual stream, by default that of the encoder's products (see onerec.model.precision). Softmax,
    log-probabilities and norms are float32 always. `precise` asks for log-probabilities as the trainer computes
    them: kernels that multiply in a lower precision than the model's are then left alone. `indexes` is shared between
    the engines of successive versions.
    """

    def __init__(
        self,
        model: OneRec,
        *,
        dtype: torch.dtype | None = None,
        indexes: IndexCache | None = None,
        native: bool = True,
        precise: bool = False,
    ) -> None:
        self.config = model.config
        self.device = model.bos.device
        self._model = model.eval()
        self._indexes = indexes or IndexCache()
        own = product_dtype(model.config.bf16, model.bos.detach())
        kernels = usable(model, own if precise else None) if native and dtype is None else None
        self.native = kernels is not None
        """Whether the compiled kernels decode."""
        self._weights: NativeWeights | Prepared
        if kernels is not None:
            self.dtype = kernels.dtype
            self._weights = NativeWeights(model, kernels)
        else:
            self.dtype = dtype or own
            self._weights = Prepared.of(model, self.dtype)

    def generate(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        *,
        beam_width: int | Sequence[int] | None = None,
        items: int | None = None,
        exclude: Sequence[Tensor] | None = None,
        allowed: Tensor | None = None,
    ) -> Generated:
        """The most probable sessions of `items` items (m by default) of each of B requests, by beam search.

        `beam_width` is one width or one for each slot, the paper's by default (the preset's); widths cannot grow
        from slot to slot. `exclude` (leaves for each request) and `allowed` (bool [N] or [B, N]) are request
        constraints; what they guarantee is said in `inference.engine.constraints`. Raises ValueError for sizes
        that contradict.
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

    def _widths(self, width: int | Sequence[int], items: int | None) -> list[int]:
        slots = self.config.session_items if items is None else items
        if not 1 <= slots <= self.config.session_items:
            raise ValueError(f"A session has 1 to {self.config.session_items} items, not {slots}.")
        widths = [width] * slots if isinstance(width, int) else list(width)[:slots]
        if len(widths) != slots or min(widths) < 1 or widths != sorted(widths, reverse=True):
            raise ValueError(f"Beam widths {width} must be {slots} positive numbers that do not grow.")
        return widths

    @torch.inference_mode()
    def _run(
        self,
        history: HistoryBatch,
        catalogue: CatalogueSnapshot,
        widths: list[int],
        selection: Selection,
        limits: Limits,
    ) -> Generated:
        requests, levels = len(history), self.config.levels
        index = self._indexes.get(catalogue.trie, self.device)
        constraints = Constraints.of(index, requests, limits)
        decoder = self._decoder(history.to(self.device), requests * widths[0], len(widths) * (levels + 1))
        beams = Beams(requests, index, constraints, selection, slots=len(widths))
        codes = torch.zeros(requests, 1, dtype=torch.int64, device=self.device)  # BOS
        parents: Tensor | None = None
        for slot, width in enumerate(widths):
            for level in range(levels):
                parents, chosen = beams.step(level, decoder.advance(level, codes, parents), width)
                codes = chosen.unsqueeze(1)
            beams.finish_slot(slot)
            kept = beams.narrow(widths[slot + 1]) if slot + 1 < len(widths) else None
            if kept is not None and parents is not None:
                parents, codes = parents[kept], codes[kept]
            codes = torch.nn.functional.pad(codes, (0, 1))  # the last code and the next item's BOS go in together
        return beams.generated()

    def _decoder(self, history: HistoryBatch, max_rows: int, max_tokens: int) -> Steps:
        if isinstance(self._weights, NativeWeights):
            tokens, mask = self._model.encoder_inputs(history)
            return NativeDecoder(self._weights, tokens, mask, max_rows=max_rows, max_tokens=max_tokens)
        memory = self._model.encode(history)
        return Decoder(self._weights, memory, self.config.heads, max_rows=max_rows, max_tokens=max_tokens)
