"""Request constraints: honoured exactly, after the softmax, and never a dead end."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference.engine.constraints import Constraints, Limits
from inference.engine.fixed_constraints import FixedConstraints
from inference.engine.index import CatalogueIndex
from inference.engine.search import Engine
from onerec.model.trie import Trie
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


@pytest.mark.parametrize("kind", [Constraints, FixedConstraints])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_child_is_closed_where_nothing_below_it_is_left(kind: type[Constraints], data: st.DataObject) -> None:
    """Against counting items one by one, for random catalogues, masks, exclusions and held items."""
    levels, codes, requests, beams = data.draw(st.integers(1, 3)), 3, 2, 2
    key = st.tuples(*[st.integers(0, codes - 1)] * levels)
    ids = data.draw(st.lists(key, min_size=1, max_size=15, unique=True))
    some = st.lists(st.integers(-1, len(ids) - 1), max_size=6)
    exclude = data.draw(st.lists(some, min_size=requests, max_size=requests))
    masks = data.draw(st.none() | st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    trie = Trie.build(torch.tensor(ids), codes)
    limits = Limits(
        [torch.tensor(own, dtype=torch.int64) for own in exclude], None if masks is None else torch.tensor(masks)
    )
    constraints = kind.of(CatalogueIndex.of(trie, torch.device("cpu")), requests, limits)
    free = [[i for i in range(len(ids)) if i not in own and (masks is None or masks[i])] for own in exclude]
    assert constraints.supply.expand(requests).tolist() == [len(own) for own in free]
    held = [data.draw(st.lists(st.sampled_from(own), max_size=2, unique=True)) if own else [] for own in free]
    size = min(map(len, held))
    held = [own[:size] for own in held for _ in range(beams)]
    level = data.draw(st.integers(0, levels - 1))
    standing = [ids[data.draw(st.integers(0, len(ids) - 1))][:level] for _ in held]
    before = torch.stack([trie.path_targets(torch.tensor(_first(ids, prefix)))[0][level] for prefix in standing])
    children = trie.children(level, before)
    closed = constraints.closed(
        level, children.nodes, before, torch.tensor(held, dtype=torch.int64).view(len(held), size), requests
    )
    for row, prefix in enumerate(standing):
        left = set(free[row // beams]) - set(held[row])
        for rank, code in enumerate(children.codes[row].tolist()):
            if children.legal[row, rank]:
                below = {i for i in left if ids[i][: level + 1] == (*prefix, code)}
                assert bool(closed[row, rank]) == (not below)


def _first(ids: list[tuple[int, ...]], prefix: tuple[int, ...]) -> int:
    return next(i for i, own in enumerate(ids) if own[: len(prefix)] == prefix)


def test_sizes_that_do_not_fit_are_refused() -> None:
    config = toys.config()
    catalogue = toys.catalogue(config, 10)
    engine, history = Engine(toys.model(config)), toys.histories(config, catalogue, [1, 2])
    with pytest.raises(ValueError, match="1 lists of excluded leaves for 2 requests"):
        engine.generate(history, catalogue, exclude=[torch.arange(2)])
    with pytest.raises(ValueError, match="allowed is"):
        engine.generate(history, catalogue, allowed=torch.ones(3, 10, dtype=torch.bool))
