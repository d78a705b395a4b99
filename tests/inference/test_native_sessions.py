"""Whole sessions by the compiled kernels against the search in torch over the same decoder, whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference.engine.constraints import Constraints, Limits
from inference.engine.generated import Generated
from inference.engine.index import CatalogueIndex
from inference.engine.native import binding
from inference.engine.native.decoder import NativeDecoder
from inference.engine.native.search import Widths
from inference.engine.search import Engine
from inference.engine.selection import BestOfAll, Chosen
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from tests.inference import toys
from tests.inference.compiling import build_kernels

CPU = torch.device("cpu")
APART = 1e-4
"""Log-probabilities that differ by more are told apart by both searches, which sum in different orders."""


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> Iterator[None]:
    if not binding.kinds():
        pytest.skip("this processor has neither AVX-512 with bfloat16 nor AVX2")
    build_kernels()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Asked(NamedTuple):
    """A call of the engine."""

    history: HistoryBatch
    catalogue: CatalogueSnapshot
    widths: Tensor  # int64 [B or 1, m, L]
    exclude: list[Tensor] | None
    allowed: Tensor | None


def shape() -> ModelConfig:
    return toys.config(d_model=64, encoder_layers=1, dropout=0.0)


@cache
def engine(kind: str) -> Engine:
    return Engine(toys.model(shape(), scale=2.0), kernels=kind)


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    config, requests = shape(), draw(st.integers(1, 5))
    catalogue = toys.catalogue(config, draw(st.sampled_from([2, 30, 300])), seed=draw(st.integers(0, 3)))
    history = toys.histories(config, catalogue, draw(st.lists(st.integers(0, 2), min_size=requests, max_size=requests)))
    slots = draw(st.integers(1, config.session_items))
    rows = []
    for _ in range(draw(st.sampled_from([1, requests]))):
        ends = sorted(draw(st.lists(st.integers(1, 9), min_size=slots, max_size=slots)), reverse=True)
        rows.append([[*draw(st.lists(st.integers(1, 9), min_size=2, max_size=2)), end] for end in ends])
    leaf = st.integers(0, len(catalogue.item_ids) - 1)
    exclude = draw(st.none() | st.lists(st.lists(leaf, max_size=12), min_size=requests, max_size=requests))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    masks = draw(st.sampled_from([None, 1, requests]))
    allowed = None if masks is None else torch.rand(masks, len(catalogue.item_ids), generator=generator) < 0.3
    return Asked(
        history,
        catalogue,
        torch.tensor(rows),
        None if exclude is None else [torch.tensor(own, dtype=torch.int64) for own in exclude],
        allowed if allowed is None or masks == requests else allowed[0],
    )


class Told(BestOfAll):
    """Beam search that knows by how much the last that it took was better than the first that it left."""

    least = float("inf")

    def choose(self, scores: Tensor, log_probs: Tensor, width: int) -> Chosen:
        every = (log_probs + scores.unsqueeze(-1)).flatten(1).sort(dim=1, descending=True).values
        gaps = (every[:, :-1] - every[:, 1:])[every[:, 1:] > -torch.inf]
        self.least = min([self.least, *gaps.tolist()])
        return super().choose(scores, log_probs, width)


@torch.inference_mode()
def by_steps(kind: str, asked: Asked) -> tuple[Generated, float]:
    """The search in torch over the compiled decoder, and the least difference of two scores in it."""
    told = Told()
    limits = Limits(asked.exclude, asked.allowed)
    constraints = Constraints.of(CatalogueIndex.of(asked.catalogue.trie, CPU), len(asked.history), limits)
    widths = Widths(asked.widths.amax(0).tolist(), asked.widths if len(asked.widths) > 1 else None)
    return engine(kind)._by_steps(asked.history, widths, told, constraints), told.least


@pytest.mark.parametrize("kind", binding.kinds())
@given(asked=asked(), threads=st.sampled_from([1, 2, 3]))
@settings(max_examples=100, deadline=None)
def test_sessions_are_those_of_the_search_by_steps(kind: str, asked: Asked, threads: int) -> None:
    expected, least = by_steps(kind, asked)
    assume(least > APART)
    torch.set_num_threads(threads)
    found = engine(kind).generate(
        asked.history,
        asked.catalogue,
        beam_width=asked.widths,
        items=asked.widths.shape[1],
        exclude=asked.exclude,
        allowed=asked.allowed,
    )
    for ours, theirs in zip(found, expected, strict=True):
        if ours.is_floating_point():
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        else:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", binding.kinds())
@pytest.mark.parametrize("requests", [1, 2, 3, 5])
def test_sessions_do_not_depend_on_how_threads_share_the_work(kind: str, requests: int) -> None:
    """Whole requests or rows: the same bits."""
    config, one = shape(), engine(kind)
    catalogue = toys.catalogue(config, 300)
    history = toys.histories(config, catalogue, [7, 2, 8, 0, 5][:requests])
    torch.set_num_threads(1)
    expected = one.generate(history, catalogue, beam_width=40)
    for threads in (2, 3, 4):
        torch.set_num_threads(threads)
        found = one.generate(history, catalogue, beam_width=40)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", binding.kinds())
def test_weights_that_are_no_numbers_find_nothing(kind: str) -> None:
    """Such a request has no items; in an order by what is no number, it might have any."""
    config = shape()
    model, catalogue = toys.model(config), toys.catalogue(config, 30)
    history = toys.histories(config, catalogue, [0, 3])
    with torch.no_grad():
        model.label_embedding.weight.fill_(torch.nan)  # of the second request's history
    found = Engine(model, kernels=kind).generate(history, catalogue, beam_width=4)
    assert bool((found.sessions[0] >= 0).all())
    assert found.log_probs[1].tolist() == [-torch.inf] * 4
    assert bool((found.sessions[1] == -1).all())


def test_rows_that_are_left_out_change_nothing() -> None:
    """Dead and decided rows, which the decoder is not fed: as if all were."""
    one, catalogue = engine(binding.kinds()[0]), toys.catalogue(shape(), 200)
    history = toys.histories(shape(), catalogue, [8, 0, 5])
    widths = torch.tensor([[[24] * 3] * 3, [[3] * 3] * 3, [[9] * 3] * 3])
    asked = Asked(history, catalogue, widths, [torch.arange(60)] * 3, None)
    packed = one.generate(history, catalogue, beam_width=widths, exclude=asked.exclude)

    class Padding(NativeDecoder):
        """Decodes every row."""

        def advance(self, level: int, codes: Tensor, parents: Tensor | None, **_: object) -> Tensor:
            return super().advance(level, codes, parents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.engine.search.NativeDecoder", Padding)
        padded, _ = by_steps(binding.kinds()[0], asked)
    assert torch.equal(packed.sessions, padded.sessions)
    torch.testing.assert_close(packed.log_probs, padded.log_probs, atol=1e-4, rtol=0)
