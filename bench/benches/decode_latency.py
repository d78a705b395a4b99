"""One request on one thread, against CTranslate2's int8."""

from __future__ import annotations

from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.benches.decode import CTRANSLATE2, ours, peer
from bench.comparison import compare

BEAMS = (32, 128)


def _measure(context: Context) -> Measured:
    figures: dict[str, float | None] = {}
    told: dict[str, Any] = {}
    rows = []
    for beam in BEAMS[:1] if context.brief else BEAMS:
        parameters = {"beam": beam, "batch": 1, "threads": 1, "kinds": ["int8"]}
        found = compare(
            context, ours(context, beam, batch=1, threads=1), peer(CTRANSLATE2, parameters), repeats=15, budget_s=20.0
        )
        mine = 1000 * found["ours"].median()
        theirs = 1000 * found["peer"].median() if "peer" in found else None
        ratio = theirs / mine if theirs else None
        figures[f"ratio_beam{beam}"] = ratio
        told[f"beam{beam}"] = {"ours_ms": mine, "peer_ms": theirs, **found.conditions()}
        rows.append((mine, theirs, ratio))
    return Measured(*rows[0], None, figures, told)


BENCHES = (
    Bench(
        "decode_latency",
        "one request on one thread, against CTranslate2 int8; ours and peer at beam 32",
        "ms",
        tuple(Bound(f"ratio_beam{beam}", ">=", 2.5) for beam in BEAMS),
        _measure,
    ),
)
