"""Log-probabilities are a distribution over the catalogue, and agree with the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onerec.model.likelihood import ntp_loss, token_log_probs
from onerec.model.onerec import Memory, OneRec
from onerec.model.trie import Trie
from tests.model.toy import assert_equal, history, model, sessions, trie

TRIE = trie()


def repeated(memory: Memory, count: int) -> Memory:
    return Memory(memory.states.expand(count, -1, -1), memory.mask.expand(count, -1))


@pytest.mark.parametrize("slot", [0, 1, 2])
@torch.no_grad()
def test_the_catalogue_sums_to_one_at_every_slot(slot: int) -> None:
    made = model()
    memory = repeated(made.encode(history([5], 5, TRIE)), len(TRIE))
    leaves = sessions(1, 3, TRIE).repeat(len(TRIE), 1)
    leaves[:, slot] = torch.arange(len(TRIE))
    total = token_log_probs(made, memory, leaves, TRIE)[:, slot].sum(-1).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-12)


def _by_definition(made: OneRec, memory: Memory, leaves: Tensor) -> Tensor:
    """All logits, a mask of the codes that some item of the catalogue has after the prefix, softmax."""
    codes = TRIE.codes_of(leaves)
    batch, items, levels = codes.shape
    hidden = made.decode(made.decoder_inputs(codes), memory).view(batch, items, levels + 1, -1)
    out = torch.empty(batch, items, levels, dtype=torch.float64)
    for b in range(batch):
        for i in range(items):
            for level in range(levels):
                same = (TRIE.codes[:, :level] == codes[b, i, :level]).all(1)
                logits = made.logits(level, hidden[b, i, level])
                legal = torch.full_like(logits, -torch.inf)
                legal[TRIE.codes[same, level].long()] = 0.0
                out[b, i, level] = torch.log_softmax(logits + legal, dim=-1)[codes[b, i, level]]
    return out


@torch.no_grad()
def test_log_probs_are_mask_then_softmax() -> None:
    made = model()
    memory, leaves = made.encode(history([5, 0], 5, TRIE)), sessions(2, 3, TRIE)
    found = token_log_probs(made, memory, leaves, TRIE)
    assert_equal(found, _by_definition(made, memory, leaves))


def test_unwanted_items_cost_nothing_and_change_nothing() -> None:
    made = model()
    memory, leaves = made.encode(history([5, 2, 3], 5, TRIE)), sessions(3, 3, TRIE)
    wanted = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    everything = token_log_probs(made, memory, leaves, TRIE)
    some = token_log_probs(made, memory, leaves, TRIE, wanted)
    assert_equal(some[wanted], everything[wanted])
    assert not some[~wanted].any()


def test_empty_slots_have_log_probability_zero() -> None:
    made = model()
    memory, leaves = made.encode(history([5], 5, TRIE)), sessions(1, 3, TRIE)
    short = leaves.clone()
    short[0, 2] = -1
    everything, some = (token_log_probs(made, memory, x, TRIE) for x in (leaves, short))
    assert_equal(some[:, :2], everything[:, :2])
    assert not some[:, 2].any()


def test_nothing_wanted_gives_a_loss_of_zero_that_can_be_trained() -> None:
    made = model()
    none = torch.zeros(2, 3)
    log_probs = token_log_probs(made, made.encode(history([5, 1], 5, TRIE)), sessions(2, 3, TRIE), TRIE, none > 0)
    loss = ntp_loss(log_probs, none)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0


def test_ntp_loss_is_the_weighted_mean_per_token() -> None:
    log_probs = -torch.arange(12.0).view(2, 2, 3)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    assert float(ntp_loss(log_probs, weight)) == pytest.approx((0 + 1 + 2 + 0.5 * (9 + 10 + 11)) / (1.5 * 3))


def test_gradients_reach_only_the_children_that_compete() -> None:
    made = model()
    lone = Trie.build(torch.tensor([[1, 2, 3], [4, 5, 6]]), 8)
    made.zero_grad()
    log_probs = token_log_probs(made, made.encode(history([2], 2, lone)), torch.tensor([[0]]), lone)
    log_probs.sum().backward()  # type: ignore[no-untyped-call]
    assert log_probs[0, 0, 1:].tolist() == [0.0, 0.0]  # an only child is certain
    first, second, _ = (parameter.grad for parameter in made.heads.parameters())
    assert first is not None
    assert first.any(1).nonzero().flatten().tolist() == [1, 4]
    assert second is None or not second.any()
