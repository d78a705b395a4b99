"""Ids of the Beauty table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evaluation.beauty.dataset import load
from evaluation.beauty.tokens import TEXT, tokens_of
from tests.evaluation.beauty.planted import planted


def test_ids_are_all_different_and_made_once(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    beauty = load(planted(tmp_path / "data", users=300))
    made = tokens_of(beauty, TEXT, 16, tmp_path)
    assert len(np.unique(made.catalogue.codes, axis=0)) == beauty.item_count
    file = tmp_path / "ids-text.npz"
    before = file.stat().st_mtime_ns
    kept = tokens_of(beauty, TEXT, 16, tmp_path)
    assert np.array_equal(kept.catalogue.codes, made.catalogue.codes)
    assert file.stat().st_mtime_ns == before
