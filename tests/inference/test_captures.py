"""Padding and the order of captured steps, with a stand-in for CUDA graphs that runs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.engine.captures import Replayed
from inference.engine.decoder import Decoder
from inference.engine.prepared import Prepared, tensors_of
from onerec.model.onerec import Memory, OneRec
from tests.inference import toys

CONFIG = toys.config()
WIDEST, TOKENS = 6, CONFIG.session_tokens


class Recording:
    """Does the work again where a graph would start its kernels again."""

    def __init__(self, work: Callable[[], None], of: Replayed) -> None:
        self._work, self._of = work, of
        self._before = None if of._decoder is None else of._decoder.ancestors
        work()

    def replay(self) -> None:
        decoder = self._of._decoder
        if self._before is not None and decoder is not None and self._before.shape[1] < decoder.tokens:
            decoder.ancestors = self._before
        self._work()


def replayed(model: OneRec, requests: int, *, fails_at: int = 1 << 30) -> Replayed:
    weights = Prepared.of(model, torch.float32)
    decoder = partial(Decoder, weights, heads=CONFIG.heads, max_rows=requests * WIDEST, max_tokens=TOKENS)
    counted = 0

    def capture(work: Callable[[], None]) -> Any:
        nonlocal counted
        counted += 1
        return None if counted > fails_at else Recording(work, made)

    made = Replayed(weights, (requests, 16), WIDEST, new_decoder=decoder, capture=capture)
    return made


def steps(requests: int, beams: tuple[int, ...], seed: int) -> list[tuple[int, Tensor, Tensor | None]]:
    """Level, codes and parents of one item and the next one's first code."""
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[int, Tensor, Tensor | None]] = [(0, torch.zeros(requests, 1, dtype=torch.int64), None)]
    before = 1
    for place, width in enumerate(beams):
        parents = torch.randint(before, (requests, width), generator=generator)
        parents += torch.arange(requests).unsqueeze(1) * before
        fed = 2 if place + 1 == CONFIG.levels else 1
        codes = torch.randint(CONFIG.codes, (requests * width, fed), generator=generator)
        if fed == 2:
            codes[:, 1] = 0
        found.append(((place + 1) % CONFIG.levels, codes, parents.flatten()))
        before = width
    return found


@torch.inference_mode()
def compare(model: OneRec, plan: Replayed, requests: int, beams: tuple[int, ...], seed: int) -> None:
    catalogue = toys.catalogue(CONFIG, 60, seed)
    memory = model.encode(toys.histories(CONFIG, catalogue, [1 + (seed + k) % 8 for k in range(requests)], seed))
    plain = Decoder(Prepared.of(model, torch.float32), memory, CONFIG.heads, requests * WIDEST, TOKENS)
    plan.begin(Memory(memory.states, memory.mask))
    for level, codes, parents in steps(requests, beams, seed):
        expected = plain.advance(level, codes, parents)
        found = plan.advance(level, codes, parents)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fails_at", [1 << 30, 0, 1, 3])
def test_steps_of_padded_batches_are_those_of_the_decoder(fails_at: int) -> None:
    """Batches of fewer requests than there is room for; other beams after a catalogue has changed; failed captures."""
    model = toys.model(CONFIG, scale=1.5)
    plan = replayed(model, 4, fails_at=fails_at)
    for seed, (requests, beams) in enumerate(
        [(4, (6, 6, 6)), (3, (6, 6, 6)), (4, (6, 6, 6)), (1, (3, 6, 6)), (2, (3, 6, 6)), (4, (6, 6, 6))]
    ):
        compare(model, plan, requests, beams, seed)
    assert plan.captured == 4 if fails_at > 6 else plan.captured < fails_at or not plan.captured


@torch.inference_mode()
def test_what_a_gpu_multiplies_is_what_a_cpu_multiplies() -> None:
    """The decoder's fused and aligned form, here on the CPU."""
    model, catalogue = toys.model(CONFIG, scale=1.5), toys.catalogue(CONFIG, 60)
    memory = model.encode(toys.histories(CONFIG, catalogue, [8, 0, 3]))
    plain, fused = (
        Decoder(Prepared.of(model, torch.float32), memory, CONFIG.heads, 3 * WIDEST, TOKENS, fused=fused)
        for fused in (False, True)
    )
    for level, codes, parents in steps(3, (6, 6, 6), seed=0):
        torch.testing.assert_close(
            fused.advance(level, codes, parents), plain.advance(level, codes, parents), atol=1e-5, rtol=0
        )


def test_all_weights_are_found_in_one_order() -> None:
    first, second = (Prepared.of(toys.model(CONFIG, seed=seed), torch.float32) for seed in (1, 2))
    assert [one.shape for one in tensors_of(first)] == [one.shape for one in tensors_of(second)]
    of_a_layer = 9  # five projections, and four tensors of the experts
    assert len(tensors_of(first)) == of_a_layer * CONFIG.decoder_layers + len(first.heads) + 5
