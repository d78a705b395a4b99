"""Which kernels decode: what a short calibration at start finds fastest on this processor for the model's shapes.

Where products multiply bfloat16 there is a choice: AMX tiles, AVX-512 vectors, and torch, whose oneDNN has kernels of
its own for both. Each of them does, in turn, the same step of a decoder with one block of the model's widths, and what
takes the least time decodes from then on. Elsewhere there is nothing to choose and nothing is timed.

The choice is for all of a process and made once for a model's shapes. It is never by the size of a batch: an answer
must not depend on what it was decoded with. Other kernels sum in another order, so two workers that chose differently
give log-probabilities that differ by rounding (`check.BOUNDS`); what a worker decodes with is in its log and in
`inference_worker_kernels`. One that is faster by less than MARGIN is not preferred to one before it, so that equal
machines choose alike.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from inference.engine.decoder import Decoder
from inference.engine.native.binding import Kernels
from inference.engine.native.check import TORCH, usable
from inference.engine.native.decoder import NativeDecoder, encode
from inference.engine.native.weights import NativeWeights
from inference.engine.prepared import Prepared
from onerec.model.batches import HistoryBatch
from onerec.model.onerec import OneRec
from onerec.model.precision import product_dtype
from onerec.model.presets import PRESETS, ModelConfig

LOG = logging.getLogger(__name__)
BUDGET_S = 0.15
"""No further round is begun after so long. The first one is always finished."""
ROUNDS = 25
MARGIN = 1.1
ROWS = 256
"""Beams of the step, of several requests: so many go through a block together (kernels.cpp)."""
MOST_CODES, MOST_HIDDEN, MOST_HISTORY = 128, 512, 64
MOST_EXPERT_WEIGHTS = 2 << 20
"""What is larger is cut to this: more of the same, and it would take long to make."""
Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was timed, and who won."""

    seconds: Mapping[str, float]
    """Of a step, by contender, the preferred first."""
    chosen: str
    took_s: float

    def sentence(self) -> str:
        """For the log and the command."""
        others = ", ".join(f"{1e3 * s:.3g} by {name}" for name, s in self.seconds.items() if name != self.chosen)
        return (
            f"{self.chosen} decodes: a block's step with {ROWS} beams takes {1e3 * self.seconds[self.chosen]:.3g} ms, "
            f"{others} (calibrated in {self.took_s:.2f} s)"
        )


def calibrate(
    prepare: Callable[[], Mapping[str, Work]],
    *,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float = BUDGET_S,
) -> Calibration:
    """Time the works of contenders, which come in order of preference, in turns.

    The least time of each counts: whatever else the machine does makes it longer.
    """
    started_s = clock()
    works = prepare()
    for work in works.values():  # the first call loads, compiles and touches its memory
        work()
    least = dict.fromkeys(works, float("inf"))
    for rounds in range(ROUNDS):
        if rounds and clock() - started_s > budget_s:
            break
        for name, work in works.items():
            before_s = clock()
            work()
            least[name] = min(least[name], clock() - before_s)
    return Calibration(least, fastest(least), clock() - started_s)


def fastest(seconds: Mapping[str, float]) -> str:
    """The first, unless one after it is faster by the margin."""
    chosen = next(iter(seconds))
    for name, took in seconds.items():
        if took * MARGIN < seconds[chosen]:
            chosen = name
    return chosen


def choose(config: ModelConfig, passing: Sequence[Kernels], own: torch.dtype, *, named: bool = False) -> Kernels | None:
    """Of kernels that may decode this model, the preferred first, those that do; None where torch does, in `own`.

    `named`: they were asked for by name, so nothing is timed.
    """
    contenders = _timed(passing)
    if named or not contenders:
        return passing[0] if passing else None
    chosen = calibration(config, contenders, own).chosen
    return next((kernels for kernels in contenders if kernels.kind == chosen), None)


@cache
def calibration(config: ModelConfig, contenders: tuple[Kernels, ...], own: torch.dtype) -> Calibration:
    """Of these shapes, once in a process; told in the log."""
    found = calibrate(lambda: _works(config, contenders, own))
    LOG.info("%s", found.sentence())
    return found


def sentences() -> list[tuple[str, str]]:
    """Of every preset that kernels fit: what decodes it here, and why."""
    found = []
    for name, config in PRESETS.items():
        if kernels := usable(config):
            contenders, own = _timed(kernels), product_dtype(config.bf16, torch.empty(0))
            alone = f"{kernels[0].kind} decodes: this processor does not multiply bfloat16, so there was no choice"
            found.append((name, calibration(config, contenders, own).sentence() if contenders else alone))
    return found


def _timed(passing: Sequence[Kernels]) -> tuple[Kernels, ...]:
    return tuple(kernels for kernels in passing if kernels.dtype == torch.bfloat16)


def thin(config: ModelConfig) -> ModelConfig:
    """One block of the decoder as it is, but for sizes that would take long to make, and no encoder."""
    hidden = min(config.expert_hidden, MOST_HIDDEN)
    experts = min(config.experts, max(config.active_experts, MOST_EXPERT_WEIGHTS // (3 * config.d_model * hidden)))
    return dataclasses.replace(
        config,
        encoder_layers=0,
        decoder_layers=1,
        session_items=1,
        history_items=min(config.history_items, MOST_HISTORY),
        codes=min(config.codes, MOST_CODES),
        experts=experts,
        expert_hidden=hidden,
    )


@torch.inference_mode()
def _works(config: ModelConfig, contenders: Sequence[Kernels], own: torch.dtype) -> dict[str, Work]:
    """The step in which beams choose the second code of an item, by each contender."""
    shape = thin(config)
    beams = min(ROWS, config.beam_width)
    requests, length = max(1, ROWS // beams), shape.levels + 1
    with torch.random.fork_rng(devices=[]):  # the process's random numbers stay what they are
        torch.manual_seed(0)
        model = OneRec(shape).eval()
        codes = torch.randint(shape.codes, (requests, shape.history_items, shape.levels))
        chosen = torch.randint(shape.codes, (requests * beams, 1))
    history = HistoryBatch(codes, torch.zeros_like(codes[..., 0]), torch.ones_like(codes[..., 0], dtype=torch.bool))
    tokens, mask = model.encoder_inputs(history)
    rows = requests * beams
    decoders: dict[str, NativeDecoder | Decoder] = {}
    for kernels in contenders:
        weights = NativeWeights(model, kernels)
        memories = encode(weights, tokens, mask)
        decoders[kernels.kind] = NativeDecoder(weights, memories, max_rows=rows, max_tokens=length)
    decoders[TORCH] = Decoder(Prepared.of(model, own), model.encode(history), shape.heads, rows, length)
    parents = torch.arange(requests).repeat_interleave(beams)
    return {name: _step(decoder, min(1, shape.levels - 1), chosen, parents) for name, decoder in decoders.items()}


def _step(decoder: NativeDecoder | Decoder, level: int, codes: torch.Tensor, parents: torch.Tensor) -> Work:
    decoder.advance(0, torch.zeros(int(parents.max()) + 1, 1, dtype=torch.int64), None)
    before = decoder.ancestors

    @torch.inference_mode()
    def work() -> object:
        decoder.ancestors = before
        return decoder.advance(level, codes, parents)

    return work
