"""What a row ranks: the beam's items with the log-probabilities that the model itself gives them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.beauty.candidates import Candidates, Member, candidates
from evaluation.beauty.dataset import NONE, Beauty, load
from evaluation.beauty.model import ItemOneRec, history_of
from onerec.catalogue import CatalogueSnapshot
from onerec.model.presets import preset
from tests.evaluation.beauty.planted import planted

CONFIG = dataclasses.replace(preset("tiny"), session_items=1, history_items=8)
WIDTH = 12
USERS = np.arange(7, 40)


@pytest.fixture(scope="module")
def beauty(tmp_path_factory: pytest.TempPathFactory) -> Beauty:
    return load(planted(tmp_path_factory.mktemp("beauty"), users=200))


def made(beauty: Beauty, seed: int) -> Member:
    torch.manual_seed(seed)
    count = beauty.item_count
    numbers = torch.randperm(CONFIG.codes**3)[:count].numpy()
    codes = np.stack([numbers // 64, numbers // 8 % 8, numbers % 8], axis=1)
    items, nothing = np.arange(count), np.zeros(count, np.int64)
    catalogue = CatalogueSnapshot.of(
        items, codes, nothing, ([()], nothing), code_count=CONFIG.codes, offset=1, codebook_version=1
    )
    return Member(ItemOneRec(CONFIG, torch.randn(count, 5)).eval(), catalogue)


def by_the_model(member: Member, beauty: Beauty, found: Candidates) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the items by codes and by vectors, without a search."""
    histories = torch.from_numpy(beauty.histories("test", CONFIG.history_items)[USERS])
    memory, items = member.model.encode(history_of(histories, member.catalogue.trie)), found.items.clamp(min=0)
    codes = member.model.next_item_log_probs(memory, items, member.catalogue.trie)
    return codes, torch.log_softmax(member.model.item_logits(memory), dim=1).gather(1, items)


@torch.inference_mode()
def test_one_models_candidates_have_its_own_log_probabilities(beauty: Beauty) -> None:
    member = made(beauty, 1)
    found = candidates([member], beauty, "test", WIDTH, users=USERS)
    codes, vectors = by_the_model(member, beauty, found)
    assert found.items.shape == (len(USERS), WIDTH)
    torch.testing.assert_close(found.codes, codes)
    torch.testing.assert_close(found.vectors, vectors)
    assert not found.counts.any()


@torch.inference_mode()
def test_of_several_models_all_know_the_items_of_all_beams(beauty: Beauty) -> None:
    members = [made(beauty, 1), made(beauty, 2)]
    found = candidates(members, beauty, "test", WIDTH, users=USERS, prior=lambda rows: torch.ones(len(rows), 1_000))
    each = [by_the_model(member, beauty, found) for member in members]
    there = found.items != NONE
    assert WIDTH < there.sum(1).float().mean() <= 2 * WIDTH
    torch.testing.assert_close(found.codes[there], ((each[0][0] + each[1][0]) / 2)[there])
    torch.testing.assert_close(found.vectors[there], ((each[0][1] + each[1][1]) / 2)[there])
    assert bool((found.counts == 1).all())
    for row, items in enumerate(found.items.tolist()):
        own = [item for item in items if item != NONE]
        assert len(set(own)) == len(own)
        known = set(beauty.histories("test", 50)[USERS[row]].tolist())
        assert [item in known for item in own] == found.seen[row, : len(own)].tolist()
