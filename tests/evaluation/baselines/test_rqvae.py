"""TIGER's tokenizer: it learns to reconstruct, uses its codes, and gives each item an id of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.baselines.rqvae import (
    Floats,
    RQVAESettings,
    Tokenised,
    kmeans,
    nearest,
    tokenise,
    with_collision_codes,
)
from onerec.errors import CheckFailedError

GROUPS, OF_GROUP = 16, 25
SETTINGS = RQVAESettings(hidden=(32,), width=8, codes=32, steps=150, batch=128, learning_rate=3e-3)


def items() -> Floats:
    """Groups lie apart; the items of one differ a little, but for two pairs of equal ones."""
    random = np.random.default_rng(3)
    centres = np.repeat(random.standard_normal((GROUPS, 12)), OF_GROUP, axis=0)
    made = centres + 0.3 * random.standard_normal(centres.shape)
    made[[1, 30]] = made[[0, 31]]
    return made.astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> Tokenised:
    torch.set_num_threads(1)
    return tokenise(items(), SETTINGS)


def test_the_reconstruction_gets_better(trained: Tokenised) -> None:
    assert trained.errors[-1] < 0.5 * trained.errors[0]
    assert trained.errors[-1] < 0.5


def test_most_codes_of_every_level_are_used(trained: Tokenised) -> None:
    assert min(trained.used) >= 0.6 * SETTINGS.codes


def test_ids_are_unique_and_equal_items_share_all_but_the_collision_code(trained: Tokenised) -> None:
    ids = trained.ids
    assert ids.shape == (GROUPS * OF_GROUP, SETTINGS.levels + 1)
    assert len(np.unique(ids, axis=0)) == len(ids)
    assert 0 <= ids.min() <= ids.max() < SETTINGS.codes
    for one, other in ((0, 1), (30, 31)):
        assert (ids[one, :-1] == ids[other, :-1]).all()
        assert ids[one, -1] != ids[other, -1]
    assert trained.colliding >= 4


def test_items_of_a_group_share_first_codes(trained: Tokenised) -> None:
    first = trained.ids[:, 0].reshape(GROUPS, OF_GROUP)
    usual = [np.bincount(own).max() / OF_GROUP for own in first]
    assert np.mean(usual) > 0.7


def test_the_same_seed_gives_the_same_ids_and_another_one_others(trained: Tokenised) -> None:
    assert (tokenise(items(), SETTINGS).ids == trained.ids).all()
    other = RQVAESettings(hidden=(32,), width=8, codes=64, steps=5, seed=1)
    assert (tokenise(items(), other).ids != trained.ids).any()


def test_it_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tokenise(items(), RQVAESettings(hidden=(8,), width=4, codes=64, steps=2))
    assert torch.rand(3).equal(expected)


def test_collision_codes_count_in_the_order_of_the_items() -> None:
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2], [0, 1]])
    assert with_collision_codes(codes, 3)[:, 2].tolist() == [0, 0, 1, 2, 0]
    with pytest.raises(CheckFailedError, match="3 items share all codes"):
        with_collision_codes(codes, 2)


def test_kmeans_finds_clusters_and_keeps_more_centroids_than_points() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 2)
    found = kmeans(points, 12)
    assert (points - found[nearest(points, found)]).square().sum(1).max() < 1.0
    assert kmeans(points[:2], 5).shape == (5, 2)
