"""Which kernels decode: what a short calibration at start finds fastest on this processor for the model's shapes.

Where products multiply bfloat16 there is a choice: AMX tiles, AVX-512 vectors, and torch, whose oneDNN has kernels of
its own for both. Each of them multiplies, in turn, matrices of the shapes that a step of the decoder multiplies, and
what takes the least time decodes from then on. Elsewhere there is nothing to choose and nothing is timed.

The choice is for all of a process and made once for a model's shapes. It is never by the size of a batch: an answer
must not depend on what it was decoded with. Other kernels sum in another order, so two workers that chose differently
give log-probabilities that differ by rounding (`check.BOUNDS`); what a worker decodes with is in its log and in
`inference_worker_kernels`. One kind has to be faster by MARGIN to be preferred to one before it, so that equal machines
choose alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from inference.engine.native.binding import Kernels
from inference.engine.native.check import TORCH, usable
from inference.engine.native.weights import whole_units
from onerec.model.precision import product_dtype
from onerec.model.presets import PRESETS, ModelConfig
from onerec.model.sizes import encoder_tokens

LOG = logging.getLogger(__name__)
BUDGET_S = 0.15
"""No further round is begun after so long. The first one is always finished."""
ROUNDS = 25
MARGIN = 1.1
TORCH_MARGIN = 1.5
"""The same for torch: between its products it does in many calls what the kernels do in passing."""
ROWS = 256
"""Beams that go through a block together (kernels.cpp)."""
MOST_COLUMNS = 1024
"""A wider matrix is more of the same: so much of it is timed."""
Work = Callable[[], object]


class Product(NamedTuple):
    """Rows [m, k] times a matrix [k, n], `times` in a step."""

    m: int
    k: int
    n: int
    times: float


Prepare = Callable[[Product], Work]
"""Lays out what a contender needs; the work is one product."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was timed, and who won."""

    seconds: Mapping[str, float]
    """Of all products of a step for ROWS beams, by contender, the preferred first."""
    chosen: str
    took_s: float

    def sentence(self) -> str:
        """For the log and the command."""
        others = ", ".join(f"{1e3 * s:.3g} by {name}" for name, s in self.seconds.items() if name != self.chosen)
        return (
            f"{self.chosen} decodes: a step's products for {ROWS} beams take {1e3 * self.seconds[self.chosen]:.3g} ms, "
            f"{others} (calibrated in {self.took_s:.2f} s)"
        )


def products(config: ModelConfig) -> list[Product]:
    """Those of a step of ROWS beams through all blocks of the decoder, and of a level's head."""
    width, blocks, hidden = config.d_model, config.decoder_layers, config.expert_hidden
    beams = min(ROWS, config.beam_width)
    head_width, memory = width // config.heads, whole_units(encoder_tokens(config))
    of_memory = blocks * config.heads * ROWS / beams
    routed = max(1, ROWS * config.active_experts // config.experts)
    found = [
        Product(ROWS, width, 3 * width, blocks),
        Product(ROWS, width, width, 3 * blocks),  # out, and query and out over the memory
        Product(beams, head_width, memory, of_memory),
        Product(beams, memory, head_width, of_memory),
        Product(routed, width, 2 * hidden, blocks * config.experts),
        Product(routed, hidden, width, blocks * config.experts),
        Product(ROWS, width, whole_units(config.codes), 1),
    ]
    return [_cut(product) for product in found]


def _cut(product: Product) -> Product:
    columns = min(product.n, MOST_COLUMNS)
    return product._replace(n=columns, times=product.times * product.n / columns)


def calibrate(
    wanted: Sequence[Product],
    contenders: Mapping[str, Prepare],
    *,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float = BUDGET_S,
) -> Calibration:
    """Time every product by every contender, in turns; the least time of each counts, as others use the machine, too.

    `contenders` are in order of preference.
    """
    started_s = clock()
    works = {name: [prepare(product) for product in wanted] for name, prepare in contenders.items()}
    for of_one in works.values():  # the first call loads, compiles and touches its memory
        for work in of_one:
            work()
    least = {name: [float("inf")] * len(wanted) for name in works}
    for rounds in range(ROUNDS):
        if rounds and clock() - started_s > budget_s:
            break
        for name, of_one in works.items():
            for place, work in enumerate(of_one):
                before_s = clock()
                work()
                least[name][place] = min(least[name][place], clock() - before_s)
    seconds = {
        name: sum(product.times * took for product, took in zip(wanted, of_one, strict=True))
        for name, of_one in least.items()
    }
    return Calibration(seconds, fastest(seconds), clock() - started_s)


def fastest(seconds: Mapping[str, float]) -> str:
    """The first, unless one after it is faster by its margin."""
    chosen = next(iter(seconds))
    for name, took in seconds.items():
        if took * (TORCH_MARGIN if name == TORCH else MARGIN) < seconds[chosen]:
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
    prepares = {kernels.kind: _by_kernels(kernels) for kernels in contenders}
    found = calibrate(products(config), prepares | {TORCH: _by_torch(own)})
    LOG.info("%s", found.sentence())
    return found


def sentences() -> list[tuple[str, str]]:
    """Of every preset that kernels fit: what decodes it here, and why."""
    found = []
    for name, config in PRESETS.items():
        own = product_dtype(config.bf16, torch.empty(0))
        if kernels := usable(config):
            contenders = _timed(kernels)
            alone = f"{kernels[0].kind} decodes: this processor does not multiply bfloat16, so there was no choice"
            found.append((name, calibration(config, contenders, own).sentence() if contenders else alone))
    return found


def _timed(passing: Sequence[Kernels]) -> tuple[Kernels, ...]:
    return tuple(kernels for kernels in passing if kernels.dtype == torch.bfloat16)


def _by_kernels(kernels: Kernels) -> Prepare:
    def prepare(product: Product) -> Work:
        rows, matrix = _random(product)
        packed = torch.empty(kernels.packed_elements(product.k, product.n), dtype=kernels.dtype)
        kernels.pack(matrix.data_ptr(), product.k, product.n, packed.data_ptr())
        kept, result = rows.to(kernels.kept), torch.empty(product.m, whole_units(product.n))
        return lambda: kernels.product(
            kept.data_ptr(), product.m, packed.data_ptr(), product.k, product.n, result.data_ptr()
        )

    return prepare


def _by_torch(dtype: torch.dtype) -> Prepare:
    def prepare(product: Product) -> Work:
        # A part for each of torch's threads, as kernels run them side by side.
        rows, matrix = (part.to(dtype) for part in _random(product, torch.get_num_threads()))
        return torch.inference_mode()(lambda: torch.mm(rows, matrix))

    return prepare


def _random(product: Product, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Numbers that are no other's: the process's generator stays as it is."""
    own = torch.Generator().manual_seed(0)
    return torch.rand(parts * product.m, product.k, generator=own), torch.rand(product.k, product.n, generator=own)
