"""Our side of the decode benches: the engine as the worker runs it."""

from __future__ import annotations

import time
from typing import Any

import torch

from bench.decoding import shapes
from inference.engine.native import binding
from inference.engine.native.check import AUTO
from inference.engine.search import Engine
from onerec.errors import DependencyMissingError
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import OneRec

WHOLE = 300
"""Items of the catalogue that one search covers entirely, to compare it with scoring every item."""
TOLERANCE = {torch.float32: 1e-3, torch.int16: 0.1, torch.bfloat16: 0.5}
INT8 = "avx512_int8"


def int8_here() -> bool:
    """Whether our kernels of 8-bit integers run on this processor."""
    return INT8 in binding.kinds()


class Decode:
    """Side: sessions of a batch of requests over a catalogue."""

    def __init__(
        self,
        *,
        beam: int,
        batch: int = shapes.BATCH,
        threads: int,
        items: int = shapes.ITEMS,
        experts: int = 1,
        hidden: int = shapes.HIDDEN,
        check: bool = False,
        kernels: str = AUTO,
    ) -> None:
        self._beam, self._batch, self._threads, self._items = beam, batch, threads, items
        self._shape = shapes.config(experts=experts, hidden=hidden, bf16=True)
        self._check, self._kernels = check, kernels
        self._exclude: list[torch.Tensor] | None = None

    def prepare(self) -> dict[str, Any]:
        """Model, catalogue and one search to warm up."""
        torch.set_num_threads(self._threads)
        torch.manual_seed(0)
        try:
            binding.build()
        except DependencyMissingError as error:
            kernels = str(error)
        else:
            kernels = "compiled"
        model = OneRec(self._shape).eval()
        self._catalogue = shapes.catalogue(self._items)
        self._history = shapes.histories(self._batch, self._catalogue.codes)
        self._engine = Engine(model, kernels=self._kernels)
        facts: dict[str, Any] = {
            "dtype": str(self._engine.dtype).removeprefix("torch."),
            "kernels": kernels if self._engine.native else f"torch ({kernels})",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "flops_a_request": shapes.flops(self._shape, self._beam),
            "positions": self._shape.session_tokens,
            "items": self._items,
            "batch": self._batch,
            "threads": self._threads,
        }
        if self._check:
            facts["differs_from_brute_force"] = self._differs(model)
        self.repeat()
        return facts

    def repeat(self) -> dict[str, Any]:
        """One batch: `seconds`, and how many of the items found are not in the catalogue or repeat in a session."""
        started_s = time.perf_counter()
        found = self._engine.generate(self._history, self._catalogue, beam_width=self._beam, exclude=self._exclude)
        seconds = time.perf_counter() - started_s
        sessions = found.sessions
        outside = (sessions < 0) | (sessions >= self._items)
        ordered = sessions.sort(dim=-1).values
        repeated = (ordered[..., 1:] == ordered[..., :-1]).any(-1)
        return {"seconds": seconds, "invalid": int(outside.sum()) + int(repeated.sum())}

    @torch.inference_mode()
    def _differs(self, model: OneRec) -> int:
        """Requests whose search with room for every item differs from scoring every item by the model itself."""
        whole = shapes.catalogue(WHOLE)
        history = shapes.histories(2, whole.codes)
        found = self._engine.rank(history, whole, beam_width=WHOLE)
        bad = 0
        for row in range(2):
            one = type(history)(*(part[row : row + 1] for part in (history.codes, history.labels, history.mask)))
            memory = model.encode(one)
            wide = type(memory)(memory.states.expand(WHOLE, -1, -1), memory.mask.expand(WHOLE, -1))
            truth = token_log_probs(model, wide, torch.arange(WHOLE).unsqueeze(1), whole.trie).sum((1, 2))
            leaves = found.first_leaves[row]
            leaves = leaves[leaves >= 0]
            scores = found.first_log_probs[row, : len(leaves)]
            same_items = sorted(leaves.tolist()) == list(range(WHOLE))
            tolerance = TOLERANCE[self._engine.dtype]
            bad += not (same_items and bool((scores - truth[leaves]).abs().max() < tolerance))
        return bad
