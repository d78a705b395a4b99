"""A step of the search by the compiled kernels against torch's: the same children are open, and the best are taken."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference.engine.beams import Beams
from inference.engine.constraints import Constraints, Limits
from inference.engine.index import CatalogueIndex
from inference.engine.native import binding
from inference.engine.selection import BestOfAll
from onerec.model.trie import Trie
from tests.inference.compiling import build_kernels
from tests.inference.search_step import Standing, step

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    if not binding.kinds():
        pytest.skip("this processor has neither AVX-512 with bfloat16 nor AVX2")
    build_kernels()


class Drawn(NamedTuple):
    """Beams before a step, and what may be taken."""

    constraints: Constraints
    logits: Tensor
    standing: Standing


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    levels, codes = draw(st.integers(1, 3)), draw(st.sampled_from([3, 40]))
    requests, beams = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    key = st.tuples(*[st.integers(0, codes - 1)] * levels)
    ids = draw(st.lists(key, min_size=1, max_size=30, unique=True))
    leaf = st.integers(0, len(ids) - 1)
    exclude = draw(st.none() | st.lists(st.lists(leaf, max_size=20), min_size=requests, max_size=requests))
    rows = draw(st.sampled_from([None, 1, requests]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    allowed = None if rows is None else torch.rand(rows, len(ids), generator=generator) < 0.5
    limits = Limits(
        None if exclude is None else [torch.tensor(own, dtype=torch.int64) for own in exclude],
        allowed if allowed is None or rows == requests else allowed[0],
    )
    trie = Trie.build(torch.tensor(ids), codes)
    level = draw(st.integers(0, levels - 1))
    standing = torch.tensor([draw(leaf) for _ in range(requests * beams)])
    most = min(2, len(ids))
    one = st.lists(leaf, min_size=most, max_size=most, unique=True)
    held = draw(st.lists(one, min_size=beams, max_size=beams))
    scores = torch.randn(requests, beams, generator=generator)
    scores[torch.rand(requests, beams, generator=generator) < 0.2] = -torch.inf
    return Drawn(
        Constraints.of(CatalogueIndex.of(trie, CPU), requests, limits),
        torch.randn(requests * beams, codes + 5, generator=generator)[:, :codes],
        Standing(
            level,
            scores,
            trie.path_targets(standing)[0][:, level],
            torch.tensor(held * requests)[:, : draw(st.integers(0, most))],
        ),
    )


@pytest.mark.parametrize("kind", binding.kinds())
@given(found=drawn(), width=st.integers(1, 12), data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_best_open_children_are_taken(kind: str, found: Drawn, width: int, data: st.DataObject) -> None:
    constraints, logits, standing = found
    level = standing.level
    requests, beams = standing.scores.shape
    kernels = binding.load(kind)
    assert kernels is not None
    own = None
    if data.draw(st.booleans()):
        own = torch.tensor(data.draw(st.lists(st.integers(1, width), min_size=requests, max_size=requests)))
    ours = step(kernels, constraints, standing, logits, width, own=own)
    every = _by_torch(found)
    trie = constraints.index.trie
    assert ours.scores.shape == (requests, min(width, beams * trie.branches[level]))
    for request in range(requests):
        taken = {}
        for place, score in enumerate(ours.scores[request].tolist()):
            row = request * ours.scores.shape[1] + place
            parent, node = int(ours.parents[row]), int(ours.nodes[row])
            assert parent // beams == request
            if score > -torch.inf:
                taken[parent, node] = score
                last = level == trie.levels - 1
                edge = node if not last else int(trie.path_edges(torch.tensor(node))[level])
                assert int(ours.codes[row]) == int(trie.tensors.edge_codes[level][edge])
        open_here = {key: score for key, score in every.items() if key[0] // beams == request}
        wanted = sorted(open_here.values(), reverse=True)[: int(own[request]) if own is not None else width]
        assert len(taken) == len(wanted), "each once, and none that is closed"
        assert sorted(taken.values(), reverse=True) == pytest.approx(wanted, abs=1e-5)
        assert taken == pytest.approx({key: open_here[key] for key in taken}, abs=1e-5)


def _by_torch(found: Drawn) -> dict[tuple[int, int], float]:
    """All open continuations, by the row that they continue and the node that they reach."""
    constraints, logits, standing = found
    level = standing.level
    requests, beams = standing.scores.shape
    torchs = Beams(requests, constraints.index, constraints, BestOfAll(), slots=3)
    _, torchs._scores, torchs._nodes, torchs._held = standing
    reached = torchs._reached(level, logits, beams * constraints.index.trie.branches[level], None)
    rows = zip(reached.parents.tolist(), reached.nodes.tolist(), reached.scores.flatten().tolist(), strict=True)
    return {(parent, node): score for parent, node, score in rows if score > -torch.inf}


def test_logits_that_are_no_numbers_open_nothing() -> None:
    """Such a request gets no items; in an order by what is no number, it might have any."""
    trie = Trie.build(torch.tensor([[0, 0], [0, 1], [1, 0]]), 2)
    constraints = Constraints.of(CatalogueIndex.of(trie, CPU), 2, Limits())
    kernels = binding.load(binding.kinds()[0])
    assert kernels is not None
    logits = torch.tensor([[torch.nan, 0.0], [1.0, 0.0]])
    standing = Standing(0, torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), torch.empty(2, 0, dtype=torch.int64))
    found = step(kernels, constraints, standing, logits, 2)
    assert found.scores[0].tolist() == [-torch.inf, -torch.inf]
    assert found.scores[1].exp().sum().item() == pytest.approx(1.0)
