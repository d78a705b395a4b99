"""Avro: the joiner's decoding of batches against fastavro record by record, and what packed lists save."""

from __future__ import annotations

from bench.bench import Bench, Bound, Context, Measured
from bench.comparison import compare
from bench.turns import Spec

RECORDS = 20_000


def _measure(context: Context) -> Measured:
    parameters = {"records": 2_000 if context.brief else RECORDS}
    sides = [Spec(f"bench.codec_sides:{name}", parameters) for name in ("Ours", "Fastavro")]
    found = compare(context, *sides, repeats=15, budget_s=20.0)
    ours, peer = found["ours"], found["peer"]
    kinds = ("impressions", "actions", "sessions")
    rates = {
        kind: {"ours": parameters["records"] / ours.median(kind), "peer": parameters["records"] / peer.median(kind)}
        for kind in kinds
    }
    figures: dict[str, float | None] = {f"ratio_{kind}": rate["ours"] / rate["peer"] for kind, rate in rates.items()}
    mine, theirs = (
        2 * parameters["records"] / (side.median("impressions") + side.median("actions")) for side in (ours, peer)
    )
    told = found.conditions() | {
        "records_per_s": {kind: {k: round(v) for k, v in r.items()} for kind, r in rates.items()}
    }
    return Measured(mine, theirs, mine / theirs, None, figures, told)


BENCHES = (
    Bench(
        "codec",
        "one core decodes impressions and actions in batches of 1,000 to rows as the joiner does, against fastavro's "
        "schemaless_reader alone, record by record; ratio_sessions is a record with a packed history of 64 items to "
        "our dataclass, against fastavro and arrays of longs to a dictionary",
        "records/s",
        (Bound("ratio", ">=", 1.1), Bound("ratio_sessions", ">=", 1.1)),
        _measure,
    ),
)
