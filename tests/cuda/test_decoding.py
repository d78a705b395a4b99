"""The engine on a GPU: brute force, the CPU's answers, and graphs that give what single kernels give."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from inference.engine.captures import CAPTURED_FROM, Captures
from inference.engine.generated import Generated
from inference.engine.search import Engine
from onerec.catalogue import CatalogueSnapshot
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from tests.inference import toys
from tests.inference.test_native import near_in_bfloat16
from tests.inference.test_search import all_items, teacher_forced

TIMES = CAPTURED_FROM + 1
"""A shape is decoded by single kernels first, then captured, then replayed."""
FLOAT32 = 1e-4
"""Largest difference of a session's log-probability that is rounding; for bfloat16 see `near_in_bfloat16`."""
SHAPES = {
    "experts": toys.config(d_model=64),
    "dense": toys.config(d_model=64, experts=1, active_experts=1),
    "codes-as-tokens": toys.config(d_model=64, history_tokens="codes", history_items=30, experts=5, active_experts=3),
}


def on(device: torch.device, model: OneRec) -> OneRec:
    return copy.deepcopy(model).to(device)


def close(found: Generated, expected: Generated, dtype: torch.dtype = torch.float32) -> None:
    if dtype == torch.bfloat16:
        return near_in_bfloat16(found.log_probs.cpu(), expected.log_probs.cpu())
    torch.testing.assert_close(found.log_probs.cpu(), expected.log_probs.cpu(), atol=FLOAT32, rtol=0)
    torch.testing.assert_close(found.first_log_probs.cpu(), expected.first_log_probs.cpu(), atol=FLOAT32, rtol=0)
    return None


def equal(found: Generated, expected: Generated) -> bool:
    return all(torch.equal(one.cpu(), other.cpu()) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_wide_search_is_scoring_every_item(device: torch.device, config: ModelConfig) -> None:
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 300)
    history = toys.histories(config, catalogue, [0, 8, 5])
    engine = Engine(on(device, model), native=False)
    scores, order = all_items(model, history, catalogue).sort(dim=1, descending=True)
    for _ in range(TIMES):
        found = engine.rank(history, catalogue, beam_width=512)
        assert torch.equal(found.first_leaves[:, :300].cpu(), order)
        torch.testing.assert_close(found.first_log_probs[:, :300].cpu(), scores, atol=FLOAT32, rtol=0)
        assert bool((found.first_leaves[:, 300:] == -1).all())


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("widths", [16, (16, 8, 3)])
def test_answers_are_those_of_the_cpu(device: torch.device, config: ModelConfig, widths: int | tuple[int, ...]) -> None:
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [0, 3, 8])
    exclude = [torch.arange(60), torch.empty(0, dtype=torch.int64), torch.tensor([5, 5, -1, 119])]
    allowed = torch.rand(3, 200, generator=torch.Generator().manual_seed(1)) < 0.7
    engine, reference = Engine(on(device, model), native=False), Engine(model, native=False)
    for limits in ({}, {"exclude": exclude}, {"exclude": exclude, "allowed": allowed}):
        expected = reference.generate(history, catalogue, beam_width=widths, **limits)
        for _ in range(TIMES):
            found = engine.generate(history, catalogue, beam_width=widths, **limits)
            close(found, expected)
            assert torch.equal(found.sessions[:, 0].cpu(), expected.sessions[:, 0])
            assert torch.equal(found.first_leaves[:, 0].cpu(), expected.first_leaves[:, 0])


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_bfloat16_is_near_float32(device: torch.device, config: ModelConfig) -> None:
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 3, 5, 1, 7, 2, 6, 4] * 4)
    engine, reference = Engine(on(device, model)), Engine(model, native=False)
    assert engine.dtype == torch.bfloat16
    expected = reference.generate(history, catalogue, beam_width=16)
    for _ in range(TIMES):
        found = engine.generate(history, catalogue, beam_width=16)
        exact = teacher_forced(model, history, found.sessions.cpu(), catalogue).sum(-1)
        near_in_bfloat16(found.log_probs.cpu(), exact)
        same = (found.sessions[:, 0].cpu() == expected.sessions[:, 0]).all(-1).float().mean()
        assert float(same) >= 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_give_what_single_kernels_give(device: torch.device, dtype: torch.dtype) -> None:
    """Batches of three and of four share graphs; the catalogue grows and shrinks in between."""
    config = SHAPES["experts"]
    model = on(device, toys.model(config, scale=1.5))
    engine = Engine(model, dtype=dtype)
    assert engine._captured is not None
    lengths = ([8, 0, 5, 2], [3, 3, 3], [1, 8, 2], [7, 7, 7, 1])
    for items in (200, 12, 200, 300):
        catalogue = toys.catalogue(config, items)
        for each in lengths:
            history = toys.histories(config, catalogue, each)
            found = engine.generate(history, catalogue, beam_width=16)
            expected = Engine(model, dtype=dtype).generate(history, catalogue, beam_width=16)
            close(found, expected, dtype)
    assert engine._captured.graphs == config.session_items * config.levels
    again = [engine.generate(history, catalogue, beam_width=16) for _ in range(2)]
    assert equal(*again), "a replay repeats its bits"


def test_the_next_version_in_the_same_modules_is_decoded_by_the_same_graphs(device: torch.device) -> None:
    config = SHAPES["experts"]
    model, other = on(device, toys.model(config, seed=1)), on(device, toys.model(config, seed=2))
    catalogue = toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 3, 0])
    captures = Captures()
    first = Engine(model, captures=captures)
    for _ in range(TIMES):
        before = first.generate(history, catalogue, beam_width=16)
    model.load_state_dict(other.state_dict())
    second = Engine(model, captures=captures)
    assert second._captured is first._captured
    assert second._captured is not None
    assert second._captured.graphs > 0
    found = second.generate(history, catalogue, beam_width=16)
    close(found, Engine(other).generate(history, catalogue, beam_width=16), torch.bfloat16)
    assert not torch.allclose(found.log_probs, before.log_probs, atol=0.1)


def test_another_thread_may_work_while_a_step_is_captured(device: torch.device) -> None:
    """As the thread does that loads the next version."""
    config = SHAPES["experts"]
    model, catalogue = on(device, toys.model(config)), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 3, 0])
    engine, ended = Engine(model, native=False), threading.Event()
    failures: list[BaseException] = []

    def load() -> None:
        try:
            while not ended.is_set():
                other = Engine(copy.deepcopy(model))  # new memory, copies from the host and kernels
                assert bool(other._model.bos.cpu().isfinite().all())
                torch.empty(1 << 26, device=device).zero_()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        found = [engine.generate(history, catalogue, beam_width=16) for _ in range(TIMES)]
    finally:
        ended.set()
        thread.join()
    assert not failures
    assert engine._captured is not None
    assert engine._captured.graphs > 0
    close(found[-1], found[0])


def test_samples_are_those_of_the_model(device: torch.device) -> None:
    config = SHAPES["experts"]
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 3])
    engine = Engine(on(device, model), precise=True)
    draws = []
    for _ in range(TIMES):
        generator = torch.Generator(device).manual_seed(5)
        found = engine.sample(history, catalogue, 32, exclude=[torch.arange(20)] * 2, generator=generator)
        exact = teacher_forced(model, history, found.sessions.cpu(), catalogue).sum(-1)
        torch.testing.assert_close(found.log_probs.cpu(), exact, atol=FLOAT32, rtol=0)
        assert int(found.sessions.min()) >= 20
        draws.append(found.sessions.cpu())
    assert torch.equal(draws[0], draws[1]), "the same seed draws the same"


def one_request(history: HistoryBatch, row: int) -> HistoryBatch:
    return HistoryBatch(*(part[row : row + 1] for part in (history.codes, history.labels, history.mask)))


def test_encoded_histories_are_kept_on_the_device(device: torch.device) -> None:
    config = SHAPES["experts"]
    model, catalogue = on(device, toys.model(config)), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8, 3])
    engine = Engine(model, native=False, memory_bytes=1 << 20)
    first, second = (engine.generate(history, catalogue, beam_width=8) for _ in range(2))
    close(second, first)
    assert engine.memories is not None
    assert engine.memories.take_counts() == (2, 2)
    alone = engine.generate(one_request(history, 1), catalogue, beam_width=8)
    torch.testing.assert_close(alone.log_probs[0], first.log_probs[1], atol=FLOAT32, rtol=0)


def test_an_index_is_made_once_for_the_device(device: torch.device) -> None:
    config = SHAPES["experts"]
    catalogue: CatalogueSnapshot = toys.catalogue(config, 200)
    engine = Engine(on(device, toys.model(config)))
    index = engine._indexes.get(catalogue.trie, device)
    assert index.trie.device == device
    engine.rank(toys.histories(config, catalogue, [3]), catalogue, beam_width=8)
    assert engine._indexes.get(catalogue.trie, device) is index
