"""What item vectors teach the codes: shares of the paths of items that are drawn as they are probable."""

from __future__ import annotations

import torch

from evaluation.beauty.teaching import lesson, taught_loss
from onerec.model.trie import Trie

ITEMS, CODES = 40, 8


def made() -> Trie:
    torch.manual_seed(5)
    numbers = torch.randperm(CODES**3)[:ITEMS]
    return Trie.build(torch.stack([numbers // 64, numbers // 8 % 8, numbers % 8], dim=1), CODES)


def test_shares_are_the_probabilities_of_children_given_the_path() -> None:
    trie = made()
    probabilities = torch.softmax(3 * torch.randn(6, ITEMS), dim=1)
    given = lesson(probabilities[:, trie.leaves_in_order()], trie)
    for row, drawn in enumerate(given.drawn.tolist()):
        path = trie.codes_of(torch.tensor(drawn))
        for level in range(trie.levels):
            below = (trie.codes[:, :level] == path[:level]).all(1)
            weights = torch.zeros(CODES).index_add(0, trie.codes[:, level].long(), probabilities[row] * below)
            expected = weights[weights > 0] / weights.sum()  # children lie in the order of their codes
            found = given.shares[level][row]
            torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-4, atol=1e-6)
            assert not found[len(expected) :].any()


def test_items_are_drawn_as_often_as_they_are_probable() -> None:
    probabilities = torch.softmax(2 * torch.randn(ITEMS), dim=0)
    trie = made()
    drawn = lesson(probabilities[trie.leaves_in_order()].expand(20_000, -1), trie).drawn
    often = torch.bincount(drawn, minlength=ITEMS) / len(drawn)
    torch.testing.assert_close(often, probabilities, rtol=0, atol=0.02)


def test_the_loss_is_least_where_the_codes_have_the_shares() -> None:
    trie = made()
    probabilities = torch.softmax(torch.randn(4, ITEMS), dim=1)
    shares = lesson(probabilities[:, trie.leaves_in_order()], trie).shares
    right = [share.clamp(min=1e-12).log().masked_fill(share == 0, -torch.inf) for share in shares]
    others = [torch.log_softmax(every + 0.3 * torch.randn_like(every), dim=1) for every in right]
    least = taught_loss(right, shares)
    assert torch.isfinite(least)
    assert least < taught_loss(others, shares)
