"""What a thousand times as many items cost."""

from __future__ import annotations

from bench.bench import Bench, Bound, Context, Measured
from bench.comparison import compare
from bench.turns import Spec

SMALL, LARGE, LARGE_BRIEF = 10_000, 10_000_000, 200_000
SIDE = "bench.decoding.growth:Grown"


def _measure(context: Context) -> Measured:
    large = LARGE_BRIEF if context.brief else LARGE
    parameters = {"beam": 32, "threads": context.threads}
    sides = [Spec(SIDE, {**parameters, "items": items}, context.threads) for items in (large, SMALL)]
    found = compare(context, *sides, repeats=31, budget_s=30.0)
    many, few = (1000 * found[side].median() for side in ("ours", "peer"))
    figures: dict[str, float | None] = {"times_as_long": many / few}
    figures["bytes_an_item"] = found["ours"].facts["bytes_an_item"]
    told = found.conditions() | {"items": large, "items_of_peer": SMALL}
    return Measured(many, few, few / many, None, figures, told)


BENCHES = (
    Bench(
        "catalogue_growth",
        "8 requests at beam 32 over 10 million items, each without 50 that its user has seen, against itself over 10 "
        "thousand, all codes decoded by both",
        "ms a batch",
        (Bound("times_as_long", "<=", 1.05), Bound("bytes_an_item", "<=", 100.0)),
        _measure,
    ),
)
