"""Request constraints: honoured exactly, after the softmax, and never a dead end."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from inference.engine.search import Engine
from tests.inference import toys
from tests.inference.test_search import TOLERANCE, all_items, teacher_forced


def random_allowed(rows: int, items: int, share: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, items, generator=generator) < share


def test_excluded_and_disallowed_items_never_come() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 120)
    history = toys.histories(config, catalogue, [0, 8, 4])
    allowed = random_allowed(3, 120, 0.5)
    exclude = [torch.arange(0, 60), torch.empty(0, dtype=torch.int64), torch.tensor([5, 5, -1, 119])]
    found = Engine(model).generate(history, catalogue, beam_width=16, exclude=exclude, allowed=allowed)
    for row in range(3):
        items = set(found.sessions[row].flatten().tolist()) | set(found.first_leaves[row].tolist())
        assert items - {-1} <= set(allowed[row].nonzero().flatten().tolist()) - set(exclude[row].tolist())
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.item_log_probs, expected, atol=TOLERANCE, rtol=0)


def test_the_best_allowed_items_are_found_even_in_nearly_empty_subtrees() -> None:
    """With beams as wide as the prefixes, the constrained order is the whole order without what is excluded."""
    config = toys.config()
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [5, 0])
    allowed = random_allowed(1, 200, 0.05)[0]
    found = Engine(model).rank(history, catalogue, beam_width=200, allowed=allowed)
    count = int(allowed.sum())
    scores, order = all_items(model, history, catalogue).masked_fill(~allowed, -torch.inf).sort(1, descending=True)
    assert torch.equal(found.first_leaves[:, :count], order[:, :count])
    torch.testing.assert_close(found.first_log_probs[:, :count], scores[:, :count], atol=TOLERANCE, rtol=0)
    assert bool((found.first_leaves[:, count:] == -1).all())


@pytest.mark.parametrize("width", [1, 2, 7])
def test_no_beam_dies_while_items_are_left(width: int) -> None:
    """The narrowest beams, in a catalogue of one crowded prefix: a beam that walks into a used-up subtree is lost."""
    config = toys.config(session_items=3, codes=2)
    model, catalogue = toys.model(config, scale=4.0), toys.catalogue(config, 8)
    history = toys.histories(config, catalogue, [1, 4, 8])
    found = Engine(model).generate(history, catalogue, beam_width=width, exclude=[torch.arange(5)] * 3)
    possible = set(itertools.permutations((5, 6, 7), 3))
    for row in range(3):
        sessions = {tuple(session) for session in found.sessions[row].tolist()}
        assert len(sessions) == min(width, 6) + (width > 6), "all orders, then one missing session"
        assert sessions - {(-1, -1, -1)} <= possible


def test_requests_with_less_than_a_session_left() -> None:
    config = toys.config(session_items=3)
    model, catalogue = toys.model(config), toys.catalogue(config, 50)
    history = toys.histories(config, catalogue, [4, 4, 4])
    exclude = [torch.arange(50), torch.arange(48), torch.arange(10)]
    found = Engine(model).generate(history, catalogue, beam_width=4, exclude=exclude)
    assert bool((found.sessions[0] == -1).all())
    assert bool((found.first_log_probs[0] == -torch.inf).all())
    assert found.sessions[1, :2].sort(dim=-1).values.tolist() == [[-1, 48, 49]] * 2
    assert found.item_log_probs[1, :2, 2].tolist() == [0.0, 0.0]
    assert int(found.sessions[2].min()) >= 10
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.log_probs[1, :2], expected[1, :2].sum(-1), atol=TOLERANCE, rtol=0)


def test_sizes_that_do_not_fit_are_refused() -> None:
    config = toys.config()
    catalogue = toys.catalogue(config, 10)
    engine, history = Engine(toys.model(config)), toys.histories(config, catalogue, [1, 2])
    with pytest.raises(ValueError, match="1 lists of excluded leaves for 2 requests"):
        engine.generate(history, catalogue, exclude=[torch.arange(2)])
    with pytest.raises(ValueError, match="allowed is"):
        engine.generate(history, catalogue, allowed=torch.ones(3, 10, dtype=torch.bool))
