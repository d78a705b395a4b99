"""The engine against brute force: what it returns is what scoring everything would."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.likelihood import token_log_probs
from onerec.model.onerec import Memory, OneRec
from tests.inference import toys

TOLERANCE = 1e-4


def teacher_forced(model: OneRec, history: HistoryBatch, sessions: Tensor, catalogue: CatalogueSnapshot) -> Tensor:
    """Log-probability of each item [B, W, m] of sessions [B, W, m], by the model as it is trained."""
    batch, width, items = sessions.shape
    with torch.no_grad():
        memory = model.encode(history)
        memory = Memory(memory.states.repeat_interleave(width, 0), memory.mask.repeat_interleave(width, 0))
        log_probs = token_log_probs(model, memory, sessions.flatten(0, 1), catalogue.trie)
    return log_probs.sum(-1).view(batch, width, items)


def all_items(model: OneRec, history: HistoryBatch, catalogue: CatalogueSnapshot) -> Tensor:
    """Log-probability [B, N] of every item of the catalogue as the next one."""
    everything = torch.arange(len(catalogue)).expand(len(history), -1).unsqueeze(-1)
    return teacher_forced(model, history, everything, catalogue).squeeze(-1)


@pytest.mark.parametrize("widths", [16, (16, 8, 3), 1])
def test_log_probs_are_those_of_the_model(widths: int | tuple[int, ...]) -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [0, 3, 8, 5])
    found = Engine(model).generate(history, catalogue, beam_width=widths)
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.item_log_probs, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.log_probs, expected.sum(-1), atol=TOLERANCE, rtol=0)
    assert bool((found.log_probs.diff(dim=1) <= 0).all()), "best first"


def test_one_item_search_is_scoring_the_whole_catalogue() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 300)
    history = toys.histories(config, catalogue, [0, 8])
    found = Engine(model).rank(history, catalogue, beam_width=512)
    scores, order = all_items(model, history, catalogue).sort(dim=1, descending=True)
    assert torch.equal(found.first_leaves[:, :300], order)
    torch.testing.assert_close(found.first_log_probs[:, :300], scores, atol=TOLERANCE, rtol=0)
    assert bool((found.first_leaves[:, 300:] == -1).all()), "there are only 300 items"
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2), atol=TOLERANCE, rtol=0)


def test_whole_sessions_are_found_by_wide_beams() -> None:
    config = toys.config(session_items=2, codes=4)
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 12)
    history = toys.histories(config, catalogue, [0, 4, 8])
    found = Engine(model).generate(history, catalogue, beam_width=200)
    every = torch.tensor(list(itertools.permutations(range(12), 2)))  # distinct items, in order
    scores = teacher_forced(model, history, every.expand(3, -1, -1), catalogue).sum(-1)
    best, order = scores.sort(dim=1, descending=True)
    torch.testing.assert_close(found.log_probs[:, : len(every)], best, atol=TOLERANCE, rtol=0)
    assert torch.equal(found.sessions[:, : len(every)], every[order])
    assert bool((found.log_probs[:, len(every) :] == -torch.inf).all())


def test_narrow_beams_return_legal_distinct_items() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=3.0), toys.catalogue(config, 40)
    found = Engine(model).generate(toys.histories(config, catalogue, [2, 6]), catalogue, beam_width=4)
    assert found.sessions.shape == (2, 4, 3)
    assert int(found.sessions.min()) >= 0
    assert int(found.sessions.max()) < 40
    for session in found.sessions.view(-1, 3).tolist():
        assert len(set(session)) == 3


def test_a_request_alone_is_answered_as_in_a_batch() -> None:
    config = toys.config()
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    engine, lengths = Engine(model), [3, 8, 0, 5]
    exclude = [torch.arange(10), torch.empty(0, dtype=torch.int64), torch.tensor([7, 7, -1]), torch.arange(150)]
    together = engine.generate(toys.histories(config, catalogue, lengths), catalogue, beam_width=8, exclude=exclude)
    batch = toys.histories(config, catalogue, lengths)
    for row, length in enumerate(lengths):
        alone = HistoryBatch(*(t[row : row + 1, :length] for t in (batch.codes, batch.labels, batch.mask)))
        single = engine.generate(alone, catalogue, beam_width=8, exclude=exclude[row : row + 1])
        assert torch.equal(single.sessions[0], together.sessions[row])
        torch.testing.assert_close(single.log_probs[0], together.log_probs[row], atol=TOLERANCE, rtol=0)


def test_fewer_items_than_beams_or_slots() -> None:
    config = toys.config(session_items=3)
    model, catalogue = toys.model(config), toys.catalogue(config, 2)
    history = toys.histories(config, catalogue, [0, 2])
    found = Engine(model).generate(history, catalogue, beam_width=16)
    assert found.sessions[:, :2, 2].tolist() == [[-1, -1], [-1, -1]], "the third slot has no item left"
    assert sorted(map(tuple, found.sessions[0, :2, :2].tolist())) == [(0, 1), (1, 0)]
    assert bool((found.sessions[:, 2:] == -1).all())
    expected = teacher_forced(model, history, found.sessions[:, :2], catalogue)
    torch.testing.assert_close(found.log_probs[:, :2], expected.sum(-1), atol=TOLERANCE, rtol=0)


def test_bfloat16_is_close() -> None:
    config = toys.config(bf16=True)
    model, catalogue = toys.model(config), toys.catalogue(config, 100)
    history = toys.histories(config, catalogue, [0, 8])
    found = Engine(model).generate(history, catalogue, beam_width=8)
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.item_log_probs, expected, atol=0.2, rtol=0)
    assert not torch.equal(found.item_log_probs, expected)


@pytest.mark.parametrize(("widths", "items"), [((4, 8, 8), None), (0, None), ((8, 8), None), (4, 9)])
def test_widths_that_contradict_are_refused(widths: int | tuple[int, ...], items: int | None) -> None:
    config = toys.config()
    catalogue = toys.catalogue(config, 10)
    engine = Engine(toys.model(config))
    with pytest.raises(ValueError, match=r"Beam widths|A session has"):
        engine.generate(toys.histories(config, catalogue, [1]), catalogue, beam_width=widths, items=items)
