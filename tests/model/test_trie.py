"""The trie against a dict of prefixes."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.model.trie import Trie

Ids = list[tuple[int, ...]]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[Ids, int]:
    levels, code_count = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    code = st.integers(0, code_count - 1)
    ids = draw(st.lists(st.tuples(*[code] * levels), min_size=1, max_size=40, unique=True))
    return ids, code_count


def _children_of(ids: Ids) -> dict[tuple[int, ...], list[int]]:
    children = defaultdict(set)
    for item in ids:
        for level, code in enumerate(item):
            children[item[:level]].add(code)
    return {prefix: sorted(found) for prefix, found in children.items()}


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_children_are_those_of_a_dict_of_prefixes(catalogue: tuple[Ids, int]) -> None:
    ids, code_count = catalogue
    trie = Trie.build(torch.tensor(ids), code_count)
    expected = _children_of(ids)
    frontier: list[tuple[tuple[int, ...], int]] = [((), 0)]
    for level in range(trie.levels):
        children = trie.children(level, torch.tensor([node for _, node in frontier]))
        assert children.codes.shape[1] == max(len(expected[prefix]) for prefix, _ in frontier)
        following = []
        for row, (prefix, _) in enumerate(frontier):
            legal = children.legal[row]
            assert children.codes[row][legal].tolist() == expected[prefix]
            nodes = children.nodes[row][legal].tolist()
            following += [((*prefix, code), node) for code, node in zip(expected[prefix], nodes, strict=True)]
        frontier = following
    in_order = trie.leaves_in_order().tolist()
    assert {item: in_order[place] for item, place in frontier} == {item: row for row, item in enumerate(ids)}


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_path_targets_lead_to_the_leaf(catalogue: tuple[Ids, int]) -> None:
    ids, code_count = catalogue
    trie = Trie.build(torch.tensor(ids), code_count)
    leaves = torch.arange(len(ids)).flip(0)
    nodes, rank = trie.path_targets(leaves)
    assert nodes[:, 0].eq(0).all()
    for level in range(trie.levels):
        children = trie.children(level, nodes[:, level])
        here = rank[:, level, None]
        assert children.legal.gather(1, here).all()
        assert children.codes.gather(1, here).squeeze(1).equal(trie.codes_of(leaves)[:, level])
        following = nodes[:, level + 1] if level + 1 < trie.levels else leaves
        found = children.nodes.gather(1, here).squeeze(1)
        assert (found if level + 1 < trie.levels else trie.leaves_in_order(found)).equal(following)


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_a_leaf_is_found_by_its_codes_and_others_are_not(catalogue: tuple[Ids, int]) -> None:
    ids, code_count = catalogue
    trie = Trie.build(torch.tensor(ids), code_count)
    for codes in itertools.product(range(code_count), repeat=trie.levels):
        assert trie.leaf(codes) == (ids.index(codes) if codes in ids else -1)


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_bounds_tell_how_many_leaves_are_below(catalogue: tuple[Ids, int]) -> None:
    ids, code_count = catalogue
    trie = Trie.build(torch.tensor(ids), code_count)
    in_order = sorted(range(len(ids)), key=ids.__getitem__)
    assert trie.leaves_in_order().tolist() == in_order
    for level in range(trie.levels - 1):
        prefixes = [ids[leaf][: level + 1] for leaf in in_order]
        assert trie.leaf_bounds(level).diff().tolist() == list(Counter(prefixes).values())


def test_numbers_are_as_narrow_as_the_catalogue_allows() -> None:
    """The bytes of an item decide how many fit: no table may quietly be 64 bits wide again."""
    codes = torch.cartesian_prod(*[torch.arange(32)] * 3)
    trie = Trie.build(codes, 32)
    columns = (getattr(trie, name) for name in Trie.__slots__ if name != "branches")
    tensors = [each for column in columns for each in (column if isinstance(column, list) else [column])]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) <= 20 * len(trie)


def test_padding_of_children_has_valid_indices() -> None:
    trie = Trie.build(torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0]]), 3)
    children = trie.children(1, torch.tensor([1]))
    assert children.legal.tolist() == [[True, False, False]]
    assert children.nodes.max() < 4
    assert children.codes.max() < 3


def test_path_targets_keep_the_shape_of_the_leaves() -> None:
    trie = Trie.build(torch.tensor([[0, 1], [1, 0]]), 2)
    nodes, rank = trie.path_targets(torch.zeros(4, 5, dtype=torch.int64))
    assert nodes.shape == rank.shape == (4, 5, 2)


@pytest.mark.parametrize(
    ("codes", "code_count", "complaint"),
    [
        (torch.empty(0, 3, dtype=torch.int64), 4, "at least one item"),
        (torch.tensor([[0, 4]]), 4, "0..3"),
        (torch.tensor([[-1, 0]]), 4, "0..3"),
        (torch.tensor([[1, 2], [1, 2]]), 4, "share a semantic id"),
        (torch.zeros(1, 7, dtype=torch.int64), 8192, "63 bits"),
    ],
)
def test_impossible_catalogues_are_refused(codes: torch.Tensor, code_count: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Trie.build(codes, code_count)
