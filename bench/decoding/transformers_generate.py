"""Peer: transformers' `generate` with beams, free or bound to a catalogue by `prefix_allowed_tokens_fn`."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import torch
import transformers

from bench.decoding import shapes, t5

FREE_TOKENS = shapes.SESSION_ITEMS * shapes.LEVELS
BOUND_TOKENS = shapes.SESSION_ITEMS * (shapes.LEVELS + 1) - 1
"""With a start token before each further item, as ours has."""


class Generate:
    """Side: a batch of requests, `num_beams` sequences each."""

    def __init__(self, *, beam: int, batch: int, threads: int, dtype: str, bound: bool = False) -> None:
        self._beam, self._batch, self._threads = beam, batch, threads
        self._dtype, self._bound = getattr(torch, dtype), bound

    def prepare(self) -> dict[str, Any]:
        """Model, words, and one search to warm up."""
        torch.set_num_threads(self._threads)
        self._model = t5.model(self._dtype)
        self._inputs = t5.inputs(self._batch)
        self._children = children() if self._bound else {}
        self._search(1)
        return {
            "peer": f"transformers {transformers.__version__} generate",
            "dtype": str(self._dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "tokens": BOUND_TOKENS if self._bound else FREE_TOKENS,
            "batch": self._batch,
            "threads": self._threads,
        }

    def repeat(self) -> dict[str, Any]:
        """One batch; `invalid` counts items that are not in the catalogue, where it is bound to one."""
        started_s = time.perf_counter()
        found = self._search(self._beam)
        return {"seconds": time.perf_counter() - started_s, "invalid": self._invalid(found) if self._bound else None}

    @torch.inference_mode()
    def _search(self, beam: int) -> torch.Tensor:
        tokens = BOUND_TOKENS if self._bound else FREE_TOKENS
        limits = {"prefix_allowed_tokens_fn": self._allowed} if self._bound else {"min_new_tokens": tokens}
        found: torch.Tensor = self._model.generate(
            self._inputs,
            num_beams=beam,
            num_return_sequences=beam,
            do_sample=False,
            max_new_tokens=tokens,
            **limits,
        )
        return found

    def _allowed(self, _request: int, sequence: torch.Tensor) -> list[int]:
        """Words that may follow: those of the catalogue below the item begun, or the next start."""
        begun = (len(sequence) - 1) % (shapes.LEVELS + 1)
        if begun == shapes.LEVELS:
            return [t5.START]
        return self._children[tuple(sequence[len(sequence) - begun :].tolist())]

    def _invalid(self, found: torch.Tensor) -> int:
        items = found[:, 1:].reshape(len(found), -1)
        begin = range(0, BOUND_TOKENS, shapes.LEVELS + 1)
        rows = torch.cat([items[:, first : first + shapes.LEVELS] for first in begin]).tolist()
        return sum(row[-1] not in self._children.get(tuple(row[:-1]), ()) for row in rows)


def children() -> dict[tuple[int, ...], list[int]]:
    """The catalogue as a prefix tree: words that follow each prefix of an item."""
    found: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    for row in shapes.item_codes(shapes.ITEMS).tolist():
        words = tuple(t5.token(level, code) for level, code in enumerate(row))
        for level, word in enumerate(words):
            found[words[:level]].add(word)
    return {prefix: sorted(words) for prefix, words in found.items()}
