"""The model with item vectors: what it computes at once must be what OneRec computes step by step."""

from __future__ import annotations

import dataclasses

import torch

from evaluation.beauty.model import ItemOneRec, history_of
from onerec.model.likelihood import token_log_probs
from onerec.model.presets import preset
from onerec.model.trie import Trie

CONFIG = dataclasses.replace(preset("tiny"), session_items=1)
ITEMS = 40


def made() -> tuple[ItemOneRec, Trie, torch.Tensor]:
    torch.manual_seed(3)
    numbers = torch.randperm(CONFIG.codes**3)[:ITEMS]
    trie = Trie.build(torch.stack([numbers // 64, numbers // 8 % 8, numbers % 8], dim=1), CONFIG.codes)
    model = ItemOneRec(CONFIG, torch.randn(ITEMS, 5), forget=0.5).eval()
    histories = torch.tensor([[3, 7, 39, -1], [0, -1, -1, -1], [5, 6, 7, 8]])
    return model, trie, histories


def test_alternatives_have_the_log_probabilities_of_onerec() -> None:
    model, trie, histories = made()
    leaves = torch.randint(ITEMS, (3, 9))
    memory = model.encode(history_of(histories, trie))
    found = model.next_item_log_probs(memory, leaves, trie)
    for place in range(leaves.shape[1]):
        alone = token_log_probs(model, memory, leaves[:, place : place + 1], trie).sum((1, 2))
        torch.testing.assert_close(found[:, place], alone)


def test_all_items_together_have_probability_one() -> None:
    model, trie, histories = made()
    memory = model.encode(history_of(histories, trie))
    found = model.next_item_log_probs(memory, torch.arange(ITEMS).expand(3, -1), trie)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))


def test_items_change_what_is_known_and_padding_does_not() -> None:
    model, trie, histories = made()
    wider = torch.nn.functional.pad(histories, (0, 3), value=-1)
    logits = model.item_logits(model.encode(history_of(histories, trie)))
    torch.testing.assert_close(model.item_logits(model.encode(history_of(wider, trie))), logits)
    with torch.no_grad():
        model.item_own.weight[7] += 1.0
    changed = model.encode(history_of(histories, trie)).states[:, 0]
    before = made()[0].encode(history_of(histories, trie)).states[:, 0]
    assert not torch.allclose(changed[0], before[0])
    torch.testing.assert_close(changed[1], before[1])
