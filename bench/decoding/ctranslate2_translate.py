"""Peer: CTranslate2, the same T5 in C++, in the best of its precisions and layouts of threads, free of a catalogue."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import TransformersConverter

from bench.decoding import shapes, t5

TOKENS = shapes.SESSION_ITEMS * shapes.LEVELS
KINDS = ("int8", "float32", "bfloat16")


class Translate:
    """Side: a batch of requests for each worker of the layout; `seconds` are those of one batch."""

    def __init__(self, *, beam: int, batch: int, threads: int, kinds: tuple[str, ...] = KINDS) -> None:
        self._beam, self._batch, self._threads, self._kinds = beam, batch, threads, kinds

    def prepare(self) -> dict[str, Any]:
        """Convert the model, try every precision and layout once, and keep the fastest."""
        self._words = [[f"w{word}" for word in row] for row in t5.inputs(self._batch).tolist()]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            t5.save(folder / "t5")
            TransformersConverter(str(folder / "t5")).convert(str(folder / "ct2"))
            tried = self._try_all(str(folder / "ct2"))
        best = min(tried, key=lambda one: tried[one])
        return {
            "peer": f"CTranslate2 {ctranslate2.__version__}",
            "layout": best,
            "tried_ms_a_batch": {one: round(1000 * seconds, 1) for one, seconds in tried.items()},
            "tokens": TOKENS,
            "batch": self._batch,
            "threads": self._threads,
        }

    def repeat(self) -> dict[str, Any]:
        """One batch for each worker."""
        started_s = time.perf_counter()
        self._search(self._translator, self._workers)
        return {"seconds": (time.perf_counter() - started_s) / self._workers}

    def _try_all(self, folder: str) -> dict[str, float]:
        tried: dict[str, float] = {}
        supported = ctranslate2.get_supported_compute_types("cpu")
        for kind in self._kinds:
            for workers in sorted({1, self._threads}) if kind in supported else ():
                each = self._threads // workers
                translator = ctranslate2.Translator(
                    folder, compute_type=kind, inter_threads=workers, intra_threads=each
                )
                self._search(translator, workers)
                started_s = time.perf_counter()
                self._search(translator, workers)
                seconds = (time.perf_counter() - started_s) / workers
                if not tried or seconds < min(tried.values()):
                    self._translator, self._workers = translator, workers
                tried[f"{kind}, {workers} x {each} threads"] = seconds
        return tried

    def _search(self, translator: Any, workers: int) -> None:
        translator.translate_batch(
            self._words * workers,
            beam_size=self._beam,
            num_hypotheses=self._beam,
            return_scores=True,
            min_decoding_length=TOKENS,
            max_decoding_length=TOKENS,
            max_batch_size=self._batch,
        )
