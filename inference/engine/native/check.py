"""Whether the kernels may be used: they must fit the model and have agreed with torch, once in each process."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from inference.engine.decoder import Decoder
from inference.engine.native import binding
from inference.engine.native.binding import Kernels
from inference.engine.native.decoder import NativeDecoder, encode
from inference.engine.native.weights import NativeWeights, fits
from inference.engine.prepared import Prepared
from onerec.errors import SettingsError
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.presets import ModelConfig, preset

LOG = logging.getLogger(__name__)
BOUNDS = {torch.float32: 1e-3, torch.int16: 0.01, torch.bfloat16: 0.1, torch.int8: 0.2}
"""Largest difference of logits that is rounding: theirs is 1 at most in the model that is tried."""
AUTO, TORCH = "auto", "torch"
"""What the setting `inference.decoding.kernels` may be besides a kind of kernels."""
BEAMS = 13
"""Not a multiple of any tile's rows."""


def usable(config: ModelConfig, dtype: torch.dtype | None = None, kinds: Sequence[str] | None = None) -> list[Kernels]:
    """The kernels that may decode a model of this shape on a CPU, the preferred first: none where torch has to.

    Of those that multiply `dtype` and of `kinds`, if given; by default of all but `binding.COARSE`.
    """
    if not fits(config):
        _tell_of(config.decoder)
        return []
    wanted = [kind for kind in binding.kinds() if dtype is None or binding.DTYPES[kind] == dtype]
    asked = [kind for kind in wanted if (kind not in binding.COARSE if kinds is None else kind in kinds)]
    checked = (_checked(kind) for kind in asked)
    return [kernels for kernels in checked if kernels is not None]


def require(named: str) -> None:
    """Raise SettingsError where the setting names kernels that cannot decode on this machine."""
    if named in {AUTO, TORCH}:
        return
    here, said = binding.kinds(), f"inference.decoding.kernels is {named}"
    if named not in here:
        runs = f"runs {' and '.join(here)}" if here else "has no AVX2"
        raise SettingsError(f"{said}, but this processor {runs}.", "Set it to auto, which takes the fastest here.")
    if _checked(named) is None:
        raise SettingsError(
            f"{said}, but these kernels are not built here or do not agree with torch.",
            "Run `python -m inference kernels`, or set it to auto.",
        )


@cache
def _tell_of(decoder: str) -> None:
    if decoder == "lazy":
        LOG.info("torch decodes: the compiled decode kernels do not know a lazy decoder")


@cache
def _checked(kind: str) -> Kernels | None:
    kernels = binding.load(kind)
    if kernels is None:
        return None
    difference = disagreement(kernels)
    if difference < BOUNDS[kernels.dtype]:
        return kernels
    LOG.error("the compiled decode kernels (%s) differ from torch by %.3g: they are not used", kind, difference)
    return None


@torch.inference_mode()
def disagreement(kernels: Kernels) -> float:
    """Largest difference of logits between kernels and torch, in float32, over a small random model's first item."""
    config = dataclasses.replace(preset("tiny"), d_model=64, codes=40, experts=3, encoder_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OneRec(config).eval()
        codes = torch.randint(config.codes, (2, config.history_items, config.levels))
        parents = torch.randint(BEAMS, (2, BEAMS)) + torch.tensor([[0], [BEAMS]])
        fed = torch.randint(config.codes, (config.levels, 2 * BEAMS, 1))
    mask = torch.arange(config.history_items) < torch.tensor([[config.history_items], [3]])
    history = HistoryBatch(codes, torch.zeros_like(codes[..., 0]), mask)
    most, length = 2 * BEAMS, config.levels + 1
    tokens, positions = model.encoder_inputs(history)
    weights = NativeWeights(model, kernels)
    both = (
        Decoder(Prepared.of(model, torch.float32), model.encode(history), config.heads, most, length),
        NativeDecoder(weights, encode(weights, tokens, positions), max_rows=most, max_tokens=length),
    )
    worst = 0.0
    for level in range(config.levels):
        first = level == 0
        rows = torch.arange(2).repeat_interleave(BEAMS) if level == 1 else parents.flatten()
        step: Tensor = torch.zeros(2, 1, dtype=torch.int64) if first else fed[level]
        ours, theirs = (decoder.advance(level, step, None if first else rows) for decoder in both)
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst
