"""Beam search of a batch of requests, against transformers, CTranslate2 and itself with experts."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.bench import Bench, Bound, Context, Measured
from bench.comparison import LIMIT, Found, compare
from bench.decoding import shapes
from bench.decoding.ours import INT8, int8_here
from bench.environments import PeerMissingError, interpreter
from bench.limit import fast_dtype
from bench.turns import Spec

OURS = "bench.decoding.ours:Decode"
TRANSFORMERS = "bench.decoding.transformers_generate:Generate"
CTRANSLATE2 = "bench.decoding.ctranslate2_translate:Translate"
WIDEST = 128
IN_INT8 = "ours_int8"
MOE_HIDDEN = shapes.ACTIVE * shapes.EXPERT_HIDDEN


def ours(context: Context, beam: int, **parameters: Any) -> Spec:
    """Our side."""
    threads = parameters.pop("threads", context.threads)
    return Spec(OURS, {"beam": beam, "threads": threads, **parameters}, threads)


def in_int8(context: Context, beam: int, **parameters: Any) -> dict[str, Spec]:
    """The same in the precision that CTranslate2 is fastest in, where our kernels have it."""
    return {IN_INT8: ours(context, beam, kernels=INT8, **parameters)} if int8_here() else {}


def peer(target: str, parameters: dict[str, Any]) -> Spec | PeerMissingError:
    """A side that needs transformers or CTranslate2."""
    try:
        return Spec(target, parameters, parameters["threads"], interpreter("decoding"))
    except PeerMissingError as error:
        return error


def throughput(found: Found, batch: int) -> Measured:
    """Requests a second of both sides, and ours as a share of the limit."""
    mine = batch / found["ours"].median()
    theirs = batch / found["peer"].median() if "peer" in found else None
    flops_per_s = mine * found["ours"].facts["flops_a_request"]
    return Measured(
        ours=mine,
        peer=theirs,
        ratio=mine / theirs if theirs else None,
        share_of_limit=flops_per_s / found[LIMIT].median("flops_per_s"),
        conditions=found.conditions(),
    )


def _free(context: Context, beam: int, target: str) -> Measured:
    parameters: dict[str, Any] = {"beam": beam, "batch": shapes.BATCH, "threads": context.threads}
    if target == TRANSFORMERS:
        parameters["dtype"] = fast_dtype()
    also = in_int8(context, beam) if target == CTRANSLATE2 else {}
    found = compare(context, ours(context, beam), peer(target, parameters), limit_dtype=fast_dtype(), also=also)
    measured = throughput(found, shapes.BATCH)
    if IN_INT8 in found:
        rate = shapes.BATCH / found[IN_INT8].median()
        measured.figures |= {"int8": rate, "ratio_int8": rate / measured.peer if measured.peer else None}
    return measured


def _constrained(context: Context) -> Measured:
    beams = (32,) if context.brief else (32, WIDEST)
    figures: dict[str, float | None] = {}
    told: dict[str, Any] = {}
    first: Measured | None = None
    for beam in beams:
        parameters: dict[str, Any] = {"beam": beam, "batch": shapes.BATCH, "threads": context.threads}
        parameters |= {"dtype": fast_dtype(), "bound": True}
        check = beam == beams[0]
        found = compare(
            context,
            ours(context, beam, check=check),
            peer(TRANSFORMERS, parameters),
            repeats=3,
            limit_dtype=fast_dtype(),
        )
        one = throughput(found, shapes.BATCH)
        figures[f"ratio_beam{beam}"] = one.ratio
        figures["invalid"] = (figures.get("invalid") or 0) + sum(found["ours"].values("invalid"))
        if check:
            figures["differs_from_brute_force"] = found["ours"].facts["differs_from_brute_force"]
        told[f"beam{beam}"] = {"ours": one.ours, "peer": one.peer, **one.conditions}
        first = first or one
    assert first is not None
    return Measured(first.ours, first.peer, first.ratio, first.share_of_limit, figures, told)


def _experts(context: Context) -> Measured:
    mixed = ours(context, 32, experts=shapes.EXPERTS, hidden=MOE_HIDDEN)
    found = compare(context, mixed, ours(context, 32, hidden=MOE_HIDDEN), limit_dtype=fast_dtype())
    measured = throughput(found, shapes.BATCH)
    measured.figures["times_as_long"] = found["ours"].median() / found["peer"].median()
    return measured


def _against_transformers(beam: int, times: float, share: float, share_amx: float) -> Bench:
    return Bench(
        f"decode_beam{beam}",
        f"sessions of 5 items in the catalogue for 8 requests, beam {beam}, against transformers' T5 generate with as "
        "many parameters, 15 tokens and no catalogue",
        "requests/s",
        (Bound("ratio", ">=", times), Bound("share_of_limit", ">=", share, share_amx)),
        partial(_free, beam=beam, target=TRANSFORMERS),
    )


def _against_ctranslate2(beam: int) -> Bench:
    return Bench(
        f"decode_ctranslate2_beam{beam}",
        f"sessions of 5 items in the catalogue for 8 requests, beam {beam}, against CTranslate2's best of int8, fp32 "
        "and thread layouts, 15 tokens and no catalogue",
        "requests/s",
        (Bound("ratio", ">=", 3.0),),
        partial(_free, beam=beam, target=CTRANSLATE2),
    )


BENCHES = (
    _against_transformers(32, 10.0, 0.65, 0.40),
    _against_transformers(WIDEST, 16.0, 0.75, 0.50),
    _against_ctranslate2(32),
    _against_ctranslate2(WIDEST),
    Bench(
        "decode_constrained",
        "the same work on both sides: transformers bound to the catalogue by prefix_allowed_tokens_fn, 20 positions; "
        "ours and peer at beam 32",
        "requests/s",
        (
            Bound("ratio_beam32", ">=", 15.0),
            Bound("ratio_beam128", ">=", 18.0),
            Bound("invalid", "<=", 0),
            Bound("differs_from_brute_force", "<=", 0),
        ),
        _constrained,
    ),
    Bench(
        "moe_decode",
        "24 experts of which 2 are active, against a dense layer of as many active parameters, beam 32, batch 8",
        "requests/s",
        (Bound("times_as_long", "<=", 1.3),),
        _experts,
    ),
)
