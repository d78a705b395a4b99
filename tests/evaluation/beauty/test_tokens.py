"""Ids of the Beauty table that are made otherwise than the stream's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evaluation.beauty.dataset import load
from evaluation.beauty.tokens import TEXT_RQVAE, tokens_of
from tests.evaluation.beauty.planted import planted


def test_rqvae_ids_have_a_collision_code_and_are_made_once(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    beauty = load(planted(tmp_path / "data", users=300))
    made = tokens_of(beauty, TEXT_RQVAE, 64, tmp_path, rqvae_steps=5)
    assert len(made.catalogue) == beauty.item_count
    assert made.catalogue.trie.levels == 4
    kept = tokens_of(beauty, TEXT_RQVAE, 64, tmp_path, rqvae_steps=0)
    assert np.array_equal(kept.catalogue.codes, made.catalogue.codes)
