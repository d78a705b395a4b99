"""One request on one thread, against CTranslate2's int8: in int8, too, where our kernels have it, and as usual."""

from __future__ import annotations

from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.benches.decode import CTRANSLATE2, IN_INT8, in_int8, ours, peer
from bench.comparison import compare

BEAMS = (32, 128)


def _measure(context: Context) -> Measured:
    figures: dict[str, float | None] = {}
    told: dict[str, Any] = {}
    rows = []
    for beam in BEAMS[:1] if context.brief else BEAMS:
        parameters = {"beam": beam, "batch": 1, "threads": 1, "kinds": ["int8"]}
        alone: dict[str, Any] = {"batch": 1, "threads": 1}
        found = compare(
            context,
            ours(context, beam, **alone),
            peer(CTRANSLATE2, parameters),
            repeats=15,
            budget_s=20.0,
            also=in_int8(context, beam, **alone),
        )
        usual, theirs = (1000 * found[side].median() if side in found else None for side in ("ours", "peer"))
        mine = 1000 * found[IN_INT8].median() if IN_INT8 in found else usual
        figures[f"ratio_beam{beam}"] = ratio = theirs / mine if theirs and mine else None
        figures[f"ratio_beam{beam}_usual"] = theirs / usual if theirs and usual else None
        told[f"beam{beam}"] = {"ours_ms": mine, "usual_ms": usual, "peer_ms": theirs, **found.conditions()}
        rows.append((mine, theirs, ratio))
    return Measured(*rows[0], None, figures, told)


BENCHES = (
    Bench(
        "decode_latency",
        "one request on one thread, against CTranslate2 int8; ours in int8, too, where our kernels have it (usual: as "
        "it decodes unless told otherwise); ours and peer at beam 32",
        "ms",
        tuple(Bound(f"ratio_beam{beam}", ">=", 2.5) for beam in BEAMS),
        _measure,
    ),
)
