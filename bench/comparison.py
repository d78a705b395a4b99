"""Ours against a peer in turns, with the machine's limit in the same turns: what most benches do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from bench.bench import Context
from bench.environments import PeerMissingError
from bench.limit import gemm
from bench.turns import Series, SideProcess, Spec, in_turn

LIMIT = "limit"


class Found(dict[str, Series]):
    """Series by the name of their side; a peer that is missing is not there, and `reason` says why."""

    reason: str | None = None

    def conditions(self) -> dict[str, Any]:
        """What stands under every figure: facts of the sides, turns, spreads, the limit, and what is missing."""
        told: dict[str, Any] = {}
        for name, series in self.items():
            if name == LIMIT:
                told["gemm_gflops"] = round(series.median("flops_per_s") / 1e9, 1)
            else:
                told[name] = series.facts
            told[f"{name}_spread"] = round(series.spread(), 3)
        told["turns"] = max((len(series.turns) for series in self.values()), default=0)
        if self.reason is not None:
            told["reason"] = self.reason
        return told


def compare(
    context: Context,
    ours: Spec,
    peer: Spec | PeerMissingError | None = None,
    *,
    repeats: int = 7,
    budget_s: float = 30.0,
    limit_dtype: str | None = None,
    also: Mapping[str, Spec] | None = None,
) -> Found:
    """Run the sides "ours" and "peer", `also` others of ours, and "limit" where a dtype is given.

    A missing peer leaves ours alone.
    """
    specs = {"ours": ours, **(also or {})}
    found = Found()
    if isinstance(peer, PeerMissingError):
        found.reason = str(peer)
    elif peer is not None:
        specs["peer"] = peer
    if limit_dtype is not None:
        specs[LIMIT] = gemm(limit_dtype, ours.threads)
    with ExitStack() as stack:
        sides = [stack.enter_context(SideProcess(name, spec, context.directory)) for name, spec in specs.items()]
        series = in_turn(sides, context.repeats(repeats), context.budget_s(budget_s))
    found.update(zip(specs, series, strict=True))
    return found
