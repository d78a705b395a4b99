"""The engine with a lazy decoder: cached decoding is the model as it is trained, and wide beams are brute force."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
import torch

from inference.engine.decoder import Decoder
from inference.engine.native import check
from inference.engine.prepared import Prepared
from inference.engine.search import Engine
from onerec.model.batches import HistoryBatch
from onerec.model.presets import ModelConfig
from tests.inference import toys
from tests.inference.test_search import TOLERANCE, all_items, teacher_forced

ONE_SET: dict[str, Any] = {"decoder": "lazy", "encoder_layers": 0, "decoder_layers": 3}
TWO_SETS: dict[str, Any] = ONE_SET | {"heads": 4, "kv_heads": 2, "kv_sets": 2, "separate_values": True}
FORMS = pytest.mark.parametrize("changes", [ONE_SET, TWO_SETS])


def lazy(changes: dict[str, Any], **more: Any) -> ModelConfig:
    return toys.config(**changes, **more)


@FORMS
@pytest.mark.parametrize("widths", [16, (16, 8, 3), 1])
def test_log_probs_are_those_of_the_model(changes: dict[str, Any], widths: int | tuple[int, ...]) -> None:
    config = lazy(changes)
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    history = toys.histories(config, catalogue, [0, 3, 8, 5])
    found = Engine(model).generate(history, catalogue, beam_width=widths)
    expected = teacher_forced(model, history, found.sessions, catalogue)
    torch.testing.assert_close(found.item_log_probs, expected, atol=TOLERANCE, rtol=0)


@FORMS
def test_one_item_search_is_scoring_the_whole_catalogue(changes: dict[str, Any]) -> None:
    config = lazy(changes)
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 300)
    history = toys.histories(config, catalogue, [0, 8])
    found = Engine(model).rank(history, catalogue, beam_width=512)
    scores, order = all_items(model, history, catalogue).sort(dim=1, descending=True)
    assert torch.equal(found.first_leaves[:, :300], order)
    torch.testing.assert_close(found.first_log_probs[:, :300], scores, atol=TOLERANCE, rtol=0)


def test_whole_sessions_are_found_by_wide_beams() -> None:
    config = lazy(TWO_SETS, session_items=2, codes=4)
    model, catalogue = toys.model(config, scale=2.0), toys.catalogue(config, 12)
    history = toys.histories(config, catalogue, [0, 4, 8])
    found = Engine(model).generate(history, catalogue, beam_width=200)
    every = torch.tensor(list(itertools.permutations(range(12), 2)))
    best, order = teacher_forced(model, history, every.expand(3, -1, -1), catalogue).sum(-1).sort(1, descending=True)
    torch.testing.assert_close(found.log_probs[:, : len(every)], best, atol=TOLERANCE, rtol=0)
    assert torch.equal(found.sessions[:, : len(every)], every[order])


def test_a_request_alone_and_a_remembered_history_are_answered_as_in_a_batch() -> None:
    config, lengths = lazy(TWO_SETS), [3, 8, 0]
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 200)
    batch = toys.histories(config, catalogue, lengths)
    together = Engine(model).generate(batch, catalogue, beam_width=8)
    remembering = Engine(model, memory_bytes=1 << 20)
    for row, length in enumerate(lengths):
        alone = HistoryBatch(*(t[row : row + 1, :length] for t in (batch.codes, batch.labels, batch.mask)))
        for _ in range(2):
            single = remembering.generate(alone, catalogue, beam_width=8)
            assert torch.equal(single.sessions[0], together.sessions[row])
            torch.testing.assert_close(single.log_probs[0], together.log_probs[row], atol=TOLERANCE, rtol=0)


@FORMS
def test_torchs_fused_attention_gives_the_same(changes: dict[str, Any]) -> None:
    config = lazy(changes)
    model, catalogue = toys.model(config, scale=1.5), toys.catalogue(config, 50)
    weights, requests, beams = Prepared.of(model, torch.float32), 2, 5
    with torch.inference_mode():
        memory = model.encode(toys.histories(config, catalogue, [2, 8]))
        both = [
            Decoder(weights, memory, config.heads, requests * beams, config.session_tokens, fused=fused)
            for fused in (False, True)
        ]
        first = torch.zeros(requests, 1, dtype=torch.int64)
        parents = torch.arange(requests).repeat_interleave(beams)
        codes = torch.arange(requests * beams).remainder(config.codes).unsqueeze(1)
        for level, fed, of in ((0, first, None), (1, codes, parents), (2, codes.flip(0).expand(-1, 2), None)):
            usual, fused = (decoder.advance(level, fed, of) for decoder in both)
            torch.testing.assert_close(fused, usual, atol=TOLERANCE, rtol=0)


def test_torch_decodes_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    check._tell_of.cache_clear()
    config = lazy(TWO_SETS, d_model=128)  # heads that the kernels could do
    with caplog.at_level(logging.INFO):
        engines = [Engine(toys.model(config)) for _ in range(2)]
    assert not any(engine.native for engine in engines)
    assert caplog.text.count("do not know a lazy decoder") == 1


def test_layers_of_a_set_share_their_memory() -> None:
    config = lazy(TWO_SETS)
    model, catalogue = toys.model(config), toys.catalogue(config, 50)
    memory = model.encode(toys.histories(config, catalogue, [2]))
    decoder = Decoder(Prepared.of(model, torch.float32), memory, config.heads, 4, config.session_tokens)
    first, second, third = (keys.data_ptr() for keys, _ in decoder._memory)
    assert first == second != third
