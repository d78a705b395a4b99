"""Balanced K-means against faiss's, which need not balance."""

from __future__ import annotations

from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.clustering_sides import CLUSTERS, WIDTH
from bench.comparison import compare
from bench.environments import PeerMissingError, interpreter
from bench.turns import Spec

POINTS, POINTS_BRIEF = 1_000_000, 20_000


def _measure(context: Context) -> Measured:
    count = POINTS_BRIEF if context.brief else POINTS
    parameters: dict[str, Any] = {"count": count, "threads": context.threads}
    peer: Spec | PeerMissingError
    try:
        peer = Spec("bench.clustering_sides:Faiss", parameters, context.threads, interpreter("clustering"))
    except PeerMissingError as error:
        peer = error
    ours = Spec("bench.clustering_sides:Balanced", parameters, context.threads)
    found = compare(context, ours, peer, repeats=1 if not context.brief else 2, budget_s=1.0)
    mine = found["ours"].median()
    theirs = found["peer"].median() if "peer" in found else None
    told = found.conditions() | {
        f"{name}_{what}": series.median(what) for name, series in found.items() for what in ("largest", "error")
    }
    ratio = theirs / mine if theirs else None
    return Measured(mine, theirs, ratio, None, {"times_as_long": mine / theirs if theirs else None}, told)


BENCHES = (
    Bench(
        "kmeans",
        f"a million points of {WIDTH} dimensions to {CLUSTERS} clusters of equal size on three levels, five sweeps a "
        "level, against five iterations of faiss.Kmeans, whose clusters may be of any size",
        "s",
        (Bound("times_as_long", "<=", 4.0),),
        _measure,
    ),
)
