"""Latency of requests at half load, with and without Kafka between client and worker."""

from __future__ import annotations

from bench.bench import Bench, Bound, Context, Measured
from bench.comparison import compare
from bench.serving.behind_kafka import measure
from bench.turns import Spec


def _measure(context: Context) -> Measured:
    turn_s, saturate_s, measure_s = (1.0, 2.0, 3.0) if context.brief else (5.0, 5.0, 20.0)
    found = compare(
        context, Spec("bench.serving.in_process:HalfLoad", {"seconds_a_turn": turn_s}), repeats=4, budget_s=20.0
    )
    alone_ms = 1000 * found["ours"].median("p99")
    behind = measure(context.directory / "kafka", saturate_s, measure_s)
    p99_ms = behind["p99_ms"]
    figures = {"p99_ms": p99_ms, "kafka_ms": p99_ms - alone_ms, "unanswered": float(behind["unanswered"])}
    told = found.conditions() | {"behind_kafka": behind}
    return Measured(p99_ms, alone_ms, alone_ms / p99_ms, None, figures, told)


BENCHES = (
    Bench(
        "request_latency",
        "p99 from a request's sending to its answer's writing, through Kafka, one worker of preset small at half of "
        "what it can serve; the peer is its queue and engine without Kafka at half of what these can serve",
        "ms",
        (Bound("p99_ms", "<=", 60.0), Bound("unanswered", "<=", 0)),
        _measure,
    ),
)
