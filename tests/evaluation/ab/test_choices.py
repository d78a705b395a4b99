"""The A/B run's cascade is chosen by what users of the other half would watch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.ab import choices_page
from evaluation.ab.choices import Visitors, others
from evaluation.ab.protocol import FULL
from evaluation.baselines.cascade import Cascade, Stages
from evaluation.baselines.sequences import SequenceBatch
from evaluation.simulator.fit import is_fitted
from evaluation.table1.world import EVERYTHING
from stream.replay.kuairand import KuaiRand


class Always:
    """Recommends the same items to everybody."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self._rows = torch.from_numpy(rows)

    def recommend(self, batch: SequenceBatch, seen: list[NDArray[np.int64]]) -> Stages:
        assert len(batch) == len(seen)
        for row, own in zip(batch.lengths.tolist(), seen, strict=True):
            assert row == min(len(own), batch.tokens.shape[1]), "what a user knows is told, and left out"
        ranked = self._rows.expand(len(batch), -1)
        return Stages(ranked, ranked, ranked, torch.zeros(ranked.shape))


def test_visits_tell_what_is_watched_longer() -> None:
    log = KuaiRand()
    items, warm = log.items(), log.exposures().user_ids[:2_000]
    chosen = others(log.histories(EVERYTHING), warm, 60)
    assert is_fitted(chosen.user_ids).all()
    assert not np.isin(chosen.user_ids, warm).any()
    visitors = Visitors(chosen, items.item_ids, fit_users=300)
    assert len(visitors) == 60
    by_length = np.argsort(items.durations_ms, kind="stable")
    shortest, longest = (cast(Cascade, Always(rows)) for rows in (by_length[:5], by_length[-5:]))
    short_s, long_s, again_s = (visitors.watch_s(cascade) for cascade in (shortest, longest, longest))
    assert len(short_s) == 60
    assert long_s.mean() > 1.2 * short_s.mean()
    assert (again_s == long_s).all(), "every cascade meets the same users"


def test_the_page_marks_what_is_taken(tmp_path: Path) -> None:
    taken = {name: getattr(FULL, name) for name in choices_page.TAKEN}
    trials = [
        taken | {"expected_watch_time_s": [20.0, 0.5]},
        taken | {"retrieved": 7, "expected_watch_time_s": [21.0, 0.5]},
    ]
    page = tmp_path / "paper.md"
    choices_page.write_paper(page, {"text": "Title.\n\nHow.", "users": 60, "seed": 1, "trials": trials})
    rows = page.read_text().splitlines()
    assert next(row for row in rows if "20.00" in row).count("**") == 10
    assert "**" not in next(row for row in rows if "21.00" in row)
