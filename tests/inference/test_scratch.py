"""Memory that batches hand on: one after the other they share it, side by side they do not."""

from __future__ import annotations

import gc

import pytest
import torch

from inference.engine.native import binding
from inference.engine.native.decoder import NativeDecoder, encode
from inference.engine.native.scratch import Scratch
from inference.engine.native.weights import NativeWeights
from tests.inference import toys
from tests.inference.compiling import build_kernels


class Batch:
    """Whoever asks."""


def test_the_next_batch_has_the_memory_of_the_last_one() -> None:
    scratch, first = Scratch(), Batch()
    place = scratch.take(4_096, first).data_ptr()
    del first
    gc.collect()
    assert scratch.take(1_024, Batch()).data_ptr() == place


def test_memory_of_a_batch_that_goes_on_is_not_given_out() -> None:
    scratch, before, first, second = Scratch(), Batch(), Batch(), Batch()
    scratch.take(4_096, before)
    del before  # what it leaves is for one of the two
    gc.collect()
    mine, other = scratch.take(4_096, first), scratch.take(4_096, second)
    mine.fill_(1)
    other.fill_(2)
    assert bool((mine == 1).all())
    assert len(scratch.take(10_000, Batch())) == 10_000


def test_two_searches_side_by_side_have_what_each_has_alone() -> None:
    if not binding.kinds():
        pytest.skip("this processor has neither AVX-512 with bfloat16 nor AVX2")
    build_kernels()
    kernels = next(found for kind in binding.kinds() if (found := binding.load(kind)) is not None)
    config = toys.config(d_model=64, dropout=0.0)
    model, catalogue = toys.model(config), toys.catalogue(config, 100)
    weights = NativeWeights(model, kernels)
    with torch.inference_mode():
        memories = encode(weights, *model.encoder_inputs(toys.histories(config, catalogue, [3, 5])))

        def begin() -> NativeDecoder:
            return NativeDecoder(weights, memories, max_rows=2, max_tokens=3)

        bos, codes = torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[1], [2]])
        alone = begin()
        alone.advance(0, bos, None)
        expected = alone.advance(1, codes, None)
        del alone
        gc.collect()
        one, other = begin(), begin()
        one.advance(0, bos, None)
        other.advance(0, codes, None)
        torch.testing.assert_close(one.advance(1, codes, None), expected, rtol=0, atol=0)
