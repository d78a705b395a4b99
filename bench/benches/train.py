"""A training step, against transformers' and against itself with experts."""

from __future__ import annotations

from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.benches.decode import MOE_HIDDEN, peer
from bench.comparison import LIMIT, Found, compare
from bench.decoding import shapes
from bench.limit import fast_dtype
from bench.turns import Spec

BATCH, BATCH_BRIEF = 64, 4
OURS = "bench.training.ours:Step"
TRANSFORMERS = "bench.training.transformers_step:Step"


def _ours(context: Context, **shape: int) -> Spec:
    batch = BATCH_BRIEF if context.brief else BATCH
    return Spec(OURS, {"batch": batch, "threads": context.threads, **shape}, context.threads)


def _measured(found: Found) -> Measured:
    batch = found["ours"].facts["batch"]
    mine = batch / found["ours"].median()
    theirs = batch / found["peer"].median() if "peer" in found else None
    share = mine * found["ours"].facts["flops_a_sample"] / found[LIMIT].median("flops_per_s")
    return Measured(mine, theirs, mine / theirs if theirs else None, share, {}, found.conditions())


def _dense(context: Context) -> Measured:
    ours = _ours(context)
    parameters: dict[str, Any] = {**ours.parameters, "dtype": fast_dtype(), "compiled": not context.brief}
    return _measured(compare(context, ours, peer(TRANSFORMERS, parameters), limit_dtype=fast_dtype(), budget_s=30.0))


def _experts(context: Context) -> Measured:
    mixed, dense = _ours(context, experts=shapes.EXPERTS, hidden=MOE_HIDDEN), _ours(context, hidden=MOE_HIDDEN)
    found = compare(context, mixed, dense, limit_dtype=fast_dtype(), budget_s=30.0)
    measured = _measured(found)
    measured.figures["times_as_long"] = found["ours"].median() / found["peer"].median()
    return measured


BENCHES = (
    Bench(
        "train_dense",
        "training samples with 150 history tokens and 20 positions in batches of 64, against transformers' T5 in the "
        "best of SDPA and eager attention with and without torch.compile",
        "samples/s",
        (Bound("ratio", ">=", 2.0), Bound("share_of_limit", ">=", 0.75, 0.50)),
        _dense,
    ),
    Bench(
        "moe_train",
        "24 experts of which 2 are active, against a dense layer of as many active parameters, batches of 64",
        "samples/s",
        (Bound("times_as_long", "<=", 1.1),),
        _experts,
    ),
)
