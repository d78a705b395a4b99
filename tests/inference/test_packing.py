"""Requests of different histories and beams in one batch: each has what it has alone, and costs what it costs alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from inference.engine.constraints import Constraints, Limits
from inference.engine.generated import Generated
from inference.engine.index import CatalogueIndex
from inference.engine.memories import Encoded, MemoryCache, content_keys
from inference.engine.native.search import Widths, generate
from inference.engine.native.weights import NativeWeights
from inference.engine.search import Engine
from inference.worker.widths import decoding_widths
from onerec.catalogue import CatalogueSnapshot
from onerec.errors import SettingsError
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig
from onerec.settings.inference import DecodingSettings
from tests.inference import toys
from tests.inference.compiling import build_kernels

CPU = torch.device("cpu")
LENGTHS = [8, 0, 5, 2, 7]
WIDTHS = torch.tensor([[24, 12, 6], [3, 3, 3], [24, 24, 24], [1, 1, 1], [9, 7, 2]])


def shape() -> ModelConfig:
    return toys.config(d_model=64, encoder_layers=2, dropout=0.0)


def one(history: HistoryBatch, row: int) -> HistoryBatch:
    return HistoryBatch(*(part[row : row + 1] for part in (history.codes, history.labels, history.mask)))


@pytest.fixture(params=["torch", "compiled"])
def engine(request: pytest.FixtureRequest) -> Engine:
    native = request.param == "compiled"
    if native:
        build_kernels()
    made = Engine(toys.model(shape()), native=native)
    assert made.native == native
    return made


def assert_row_is(found: Generated, row: int, alone: Generated, *, exact: bool) -> None:
    """The row holds what the request has alone, and nothing else."""
    width = alone.log_probs.shape[1]
    atol = 0.0 if exact else 1e-5
    torch.testing.assert_close(found.log_probs[row, :width], alone.log_probs[0], atol=atol, rtol=0)
    if exact:
        assert torch.equal(found.sessions[row, :width], alone.sessions[0])
    assert (found.log_probs[row, width:] == -torch.inf).all()
    assert (found.sessions[row, width:] == -1).all()


def test_each_request_of_a_batch_has_what_it_has_alone(engine: Engine) -> None:
    catalogue = toys.catalogue(engine.config, 200)
    history = toys.histories(engine.config, catalogue, LENGTHS)
    found = engine.generate(history, catalogue, beam_width=WIDTHS)
    for row in range(len(LENGTHS)):
        alone = engine.generate(one(history, row), catalogue, beam_width=WIDTHS[row].tolist())
        assert_row_is(found, row, alone, exact=engine.native)


@pytest.fixture
def compiled() -> Engine:
    build_kernels()
    return Engine(toys.model(shape()))


@torch.inference_mode()
def decoded(engine: Engine, history: HistoryBatch, widths: Tensor, catalogue: CatalogueSnapshot) -> Tensor:
    """Tokens that the compiled decoder was fed for each request, int64 [B]."""
    weights = engine._weights
    assert isinstance(weights, NativeWeights)
    constraints = Constraints.of(CatalogueIndex.of(catalogue.trie, CPU), len(history), Limits())
    own = engine._widths(widths, widths.shape[1])
    asked = Widths(own.amax(0).tolist(), own if len(own) > 1 else None)
    return generate(weights, engine._remembered(history), constraints, asked, engine.often_open).decoded


def test_narrow_requests_do_not_pay_for_wide_ones(compiled: Engine) -> None:
    catalogue = toys.catalogue(compiled.config, 200)
    history = toys.histories(compiled.config, catalogue, LENGTHS)
    together = decoded(compiled, history, WIDTHS, catalogue)
    alone = [decoded(compiled, one(history, row), WIDTHS[row : row + 1], catalogue) for row in range(len(LENGTHS))]
    assert together.tolist() == torch.cat(alone).tolist()
    assert together[3] < together[4] < together[2]


def test_the_last_code_of_an_item_without_siblings_is_not_decoded(compiled: Engine) -> None:
    config = compiled.config
    catalogue = toys.catalogue(config, 20)  # of 512 ids: hardly two share their first two codes
    history = toys.histories(config, catalogue, [8, 3])
    found = compiled.rank(history, catalogue, beam_width=16)
    few = decoded(compiled, history, torch.tensor([[16]]), catalogue)
    compiled.often_open = 0.0  # nothing is looked at
    every = decoded(compiled, history, torch.tensor([[16]]), catalogue)
    first = len({code for code, *_ in catalogue.codes.tolist()})
    assert every.tolist() == [1 + first + 16] * 2
    assert bool((few < every - 8).all())
    expected = Engine(toys.model(shape()), native=False).rank(history, catalogue, beam_width=16)
    torch.testing.assert_close(found.log_probs, expected.log_probs, atol=0.2, rtol=0)


def test_each_level_has_its_own_width(engine: Engine) -> None:
    catalogue = toys.catalogue(engine.config, 200)
    history = toys.histories(engine.config, catalogue, LENGTHS)
    levels = torch.tensor([[[4, 8, 16]] * 3])
    found = engine.generate(history, catalogue, beam_width=levels)
    assert found.log_probs.shape == (5, 16)
    first = {tuple(code) for code in catalogue.codes[found.first_leaves[0].numpy()][:, :1].tolist()}
    assert len(first) <= 4  # after the first code four beams lived


@pytest.mark.parametrize(
    "widths",
    [torch.tensor([[4, 8, 8]]), torch.tensor([[0, 0, 0]]), torch.ones(2, 3, dtype=torch.int64), torch.ones(1, 3, 9)],
)
def test_widths_that_do_not_fit_are_refused(engine: Engine, widths: Tensor) -> None:
    catalogue = toys.catalogue(engine.config, 50)
    history = toys.histories(engine.config, catalogue, LENGTHS)
    with pytest.raises(ValueError, match=r"[Bb]eam widths"):
        engine.generate(history, catalogue, beam_width=widths)


def counting_encoder(model: OneRec, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each call of the encoder got."""
    calls: list[int] = []
    inputs = model.encoder_inputs

    def counted(history: HistoryBatch) -> tuple[Tensor, Tensor]:
        calls.append(len(history))
        return inputs(history)

    monkeypatch.setattr(model, "encoder_inputs", counted)
    return calls


@pytest.mark.parametrize("native", [True, False])
def test_a_history_that_has_not_changed_is_not_encoded_again(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shape()
    model, catalogue = toys.model(config), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, LENGTHS)
    plain, keeping = (Engine(model, native=native, memory_bytes=size) for size in (0, 1 << 24))
    calls = counting_encoder(model, monkeypatch)
    expected = plain.generate(history, catalogue, beam_width=12)
    for _ in range(2):
        found = keeping.generate(history, catalogue, beam_width=12)
        torch.testing.assert_close(found.log_probs, expected.log_probs, atol=1e-5, rtol=0)
        assert torch.equal(found.sessions[:, 0], expected.sessions[:, 0])
    assert calls == [5, 5]  # once by each engine
    changed = dataclasses.replace(history, labels=history.labels.clone())
    changed.labels[2, 0] += 1
    keeping.generate(changed, catalogue, beam_width=12)
    assert calls == [5, 5, 1]  # the one that changed


def test_a_new_version_encodes_anew() -> None:
    config = shape()
    catalogue = toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [8])
    old, new = toys.model(config), toys.model(config, scale=1.5)
    Engine(old, memory_bytes=1 << 24).generate(history, catalogue, beam_width=8)
    after_swap = Engine(new, memory_bytes=1 << 24)
    found = after_swap.generate(history, catalogue, beam_width=8)
    assert torch.equal(found.log_probs, Engine(new).generate(history, catalogue, beam_width=8).log_probs)
    assert after_swap.memories is not None
    assert (after_swap.memories.hits, after_swap.memories.misses) == (0, 1)


def test_the_cache_keeps_to_its_bound_and_lets_the_oldest_go() -> None:
    size = 4 * 25 + 1
    cache = MemoryCache(3 * size)
    for name in (b"a", b"b", b"c"):
        cache.put(name, Encoded(1, torch.zeros(25)))
    assert cache.get(b"a") is not None
    cache.put(b"d", Encoded(1, torch.zeros(25)))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.size_bytes == 3 * size
    cache.put(b"large", Encoded(1, torch.zeros(1000)))
    assert len(cache) == 3


def test_keys_do_not_depend_on_padding() -> None:
    config = shape()
    catalogue = toys.catalogue(config, 50)
    history = toys.histories(config, catalogue, [8, 3])
    short = HistoryBatch(history.codes[1:, :4], history.labels[1:, :4], history.mask[1:, :4])
    assert content_keys(history)[1] == content_keys(short)[0]
    assert content_keys(history)[0] != content_keys(history)[1]


def test_the_worker_takes_the_widths_of_its_settings() -> None:
    decoding = DecodingSettings(beam_width=32, later_beam_width=8, level_widths=(4, 16, 32))
    widths = decoding_widths(decoding, shape())
    assert widths.tolist() == [[[4, 16, 32], [4, 8, 8], [4, 8, 8]]]
    with pytest.raises(SettingsError, match="2 numbers"):
        decoding_widths(DecodingSettings(level_widths=(4, 16)), shape())
    with pytest.raises(ValueError, match="positive"):
        DecodingSettings(level_widths=())
