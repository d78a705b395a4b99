"""The reward model on candidates of one user, together and one by one."""

from __future__ import annotations

import time
from typing import Any

import torch

from bench.bench import Bench, Bound, Context, Measured
from bench.comparison import compare
from bench.turns import Spec
from onerec.model.batches import HistoryBatch
from onerec.model.presets import preset
from onerec.model.reward import RewardModel

CANDIDATES = 128
TURN_S = 0.1
"""Of a turn: one call takes a millisecond or two, which after a pause is twice as much."""


class Scores:
    """Side: rewards of CANDIDATES sessions of one user with a full history."""

    def __init__(self, *, together: bool, threads: int, name: str) -> None:
        self._together, self._threads, self._config = together, threads, preset(name)

    def prepare(self) -> dict[str, Any]:
        """Model and candidates; both ways must agree."""
        torch.set_num_threads(self._threads)
        torch.manual_seed(0)
        config = self._config
        self._model = RewardModel(config).eval()
        codes = torch.randint(config.codes, (1, config.history_items, config.levels))
        labels = torch.zeros(1, config.history_items, dtype=torch.int64)
        self._history = HistoryBatch(codes, labels, torch.ones_like(labels, dtype=torch.bool))
        self._codes = torch.randint(config.codes, (CANDIDATES, config.session_items, config.levels))
        self._durations = torch.rand(CANDIDATES, config.session_items)
        self._mask = torch.ones(CANDIDATES, config.session_items, dtype=torch.bool)
        torch.testing.assert_close(self._score(slice(None)), self._one_by_one(), atol=1e-4, rtol=1e-4)
        return {"preset": config.name, "threads": self._threads, "candidates": CANDIDATES}

    def repeat(self) -> dict[str, Any]:
        """All candidates, again and again for the time of a turn; `seconds` of each time."""
        times, started_s = 0, time.perf_counter()
        while (passed_s := time.perf_counter() - started_s) < TURN_S:
            if self._together:
                self._score(slice(None))
            else:
                self._one_by_one()
            times += 1
        return {"seconds": passed_s / times}

    @torch.inference_mode()
    def _score(self, rows: slice) -> torch.Tensor:
        parts = (self._codes[rows], self._durations[rows], self._mask[rows])
        return torch.stack(list(self._model.score_candidates(self._history, *parts)))

    @torch.inference_mode()
    def _one_by_one(self) -> torch.Tensor:
        """As without `score_candidates`: the history is encoded for each."""
        found = []
        for row in range(CANDIDATES):
            one = slice(row, row + 1)
            found.append(
                torch.stack(list(self._model(self._history, self._codes[one], self._durations[one], self._mask[one])))
            )
        return torch.cat(found, dim=1)


def _measure(context: Context) -> Measured:
    sides = [
        Spec("bench.benches.reward:Scores", {"together": together, "threads": 1, "name": "small"})
        for together in (True, False)
    ]
    found = compare(context, *sides, repeats=31, budget_s=15.0)
    mine, theirs = (CANDIDATES / found[side].median() for side in ("ours", "peer"))
    return Measured(mine, theirs, mine / theirs, None, {}, found.conditions())


BENCHES = (
    Bench(
        "reward",
        "128 sessions of one user scored in one call, against one by one; preset small, one thread",
        "sessions/s",
        (Bound("ratio", ">=", 20.0),),
        _measure,
    ),
)
