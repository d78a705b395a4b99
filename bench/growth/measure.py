"""Measures the points of a curve: CPU time, which another process's load does not lengthen as it does wall time."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from bench.growth.curves import SLACK, Curve, Point
from bench.growth.fit import fit
from inference.engine.search import Engine
from onerec.model.onerec import OneRec

LOG = logging.getLogger(__name__)
REPEATS, BRIEF_REPEATS = 5, 2


def measured(curve: Curve, *, brief: bool) -> dict[str, Any]:
    """The curve as an object: sizes, milliseconds of one batch on one thread, exponents, and whether they hold."""
    sizes = list(curve.chosen(brief=brief))
    costs = []
    for size in sizes:
        costs.append(round(1000 * seconds(curve.point(size), BRIEF_REPEATS if brief else REPEATS), 3))
        LOG.info("%s %d: %.1f ms", curve.name, size, costs[-1])
    exponents = fit(sizes, costs)
    return {
        "name": curve.name,
        "unit": curve.unit,
        "sizes": sizes,
        "cpu_ms_a_batch": costs,
        "exponent": round(exponents.mean, 3),
        "exponent_last": round(exponents.last, 3),
        "bound": curve.bound,
        "why": curve.why,
        "holds": exponents.last <= curve.bound + SLACK,
    }


def seconds(point: Point, repeats: int) -> float:
    """The least of several batches, after one to warm up."""
    torch.manual_seed(0)
    engine = Engine(OneRec(point.shape).eval())
    catalogue = point.catalogue()
    histories = point.histories(catalogue)
    taken = []
    for _ in range(repeats + 1):
        started = time.process_time()
        engine.generate(histories, catalogue, beam_width=point.beam)
        taken.append(time.process_time() - started)
    return min(taken[1:])
