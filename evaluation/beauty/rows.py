"""The rows of the Beauty table, in families that share training: what a family is trained by, and how its rows do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from evaluation.beauty.accuracy import Scores, batches, figures, itemwise, places_of, without_seen
from evaluation.beauty.candidates import Member, candidates
from evaluation.beauty.counts import GRID, Counts, Weights
from evaluation.beauty.dataset import Part
from evaluation.beauty.members import Context, Kind, member
from evaluation.beauty.mixture import both_figures, chosen
from evaluation.beauty.protocol import HISTORY_ITEMS
from evaluation.beauty.sequence import TRUNK, scorer, train_sasrec
from evaluation.beauty.tokens import VIEWS

Figures = dict[str, dict[str, float]]
Additions = tuple[Literal["vectors", "counts"], ...]
PARTS: tuple[Part, ...] = ("test", "validation")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of one seed: the columns of the test item among `unseen` items and among `all`."""

    name: str
    test: Figures
    validation: Figures
    parameters: int = 0
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that are made together."""

    rows: tuple[str, ...]
    make: Callable[[Context], Iterator[Row]]


def families() -> tuple[Family, ...]:
    """All rows in the order of the table."""
    return (
        Family(("popularity", "cooccurrence"), _counts),
        Family(("sasrec-softmax",), _sasrec),
        _generated("tiger", "tiger"),
        _generated("onerec", "onerec"),
        _generated("onerec+backward", "backward"),
        _rescored("onerec+items", "items"),
        _rescored("onerec+taught", "taught"),
        Family(("onerec+views", "onerec+rescored", "onerec+counts"), _views),
    )


def _counts(at: Context) -> Iterator[Row]:
    started_s = time.monotonic()
    counts = Counts(at.beauty, at.device)
    yield _itemwise("popularity", counts.popularity, at, HISTORY_ITEMS, seconds=time.monotonic() - started_s)
    weights = count_weights(counts, at)
    seconds = time.monotonic() - started_s
    plain = _places(partial(counts.cooccurrence, weights=Weights()), at, "test", HISTORY_ITEMS)
    details = {"weights": weights.as_dict(), "plain counts": plain}
    scores = partial(counts.cooccurrence, weights=weights)
    yield _itemwise("cooccurrence", scores, at, HISTORY_ITEMS, seconds=seconds, details=details)


def count_weights(counts: Counts, at: Context) -> Weights:
    """The figures of the co-occurrence count that are best on validation."""
    histories = torch.from_numpy(at.beauty.histories("validation", HISTORY_ITEMS))
    truth = torch.from_numpy(at.beauty.truth("validation")).to(at.device)

    def value(weights: Weights) -> float:
        places = []
        for chunk in batches(histories.numpy(), 256):
            own, wanted = histories[chunk].to(at.device), truth[chunk]
            places.append(places_of(without_seen(counts.cooccurrence(own, weights), own), wanted))
        return figures(torch.cat(places).cpu().numpy())["recall_at_10"]

    return max(GRID, key=value)


def _sasrec(at: Context) -> Iterator[Row]:
    model, history = train_sasrec(at.beauty, at.form.sequence, at.seed, at.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    seconds = history["seconds"]
    yield _itemwise("sasrec-softmax", scorer(model), at, TRUNK.length, size, seconds=seconds, details=history)


def _itemwise(
    name: str,
    scores: Scores,
    at: Context,
    length: int,
    parameters: int = 0,
    *,
    seconds: float,
    details: dict[str, Any] | None = None,
) -> Row:
    test, validation = (_places(scores, at, part, length) for part in PARTS)
    return Row(name, test, validation, parameters, seconds, details or {})


def _places(scores: Scores, at: Context, part: Part, length: int) -> Figures:
    return {which: figures(own) for which, own in itemwise(scores, at.beauty, part, length, at.device).items()}


def _generated(name: str, kind: Kind) -> Family:
    """One model, its beam as it is."""

    def rows(at: Context) -> Iterator[Row]:
        yield from _mixed(at, [member(at, kind)], at.form.beam, {name: ()})

    return Family((name,), rows)


def _rescored(name: str, kind: Kind) -> Family:
    """One model with item vectors: its beam as it is, and ordered by these and by counts, too."""
    wanted: dict[str, Additions] = {name: (), f"{name}-rescored": ("vectors", "counts")}

    def rows(at: Context) -> Iterator[Row]:
        yield from _mixed(at, [member(at, kind)], at.form.beam, wanted)

    return Family(tuple(wanted), rows)


def _views(at: Context) -> Iterator[Row]:
    wanted: dict[str, Additions] = {
        "onerec+views": (),
        "onerec+rescored": ("vectors",),
        "onerec+counts": ("vectors", "counts"),
    }
    yield from _mixed(at, [member(at, "taught", view) for view in VIEWS], at.form.beam_of_views, wanted)


def _mixed(
    at: Context, trained: list[tuple[Member, dict[str, Any]]], beam: int, wanted: dict[str, Additions]
) -> Iterator[Row]:
    """Rows of the same candidates in the orders of different mixtures."""
    prior, weights = None, None
    if any("counts" in additions for additions in wanted.values()):
        counts = Counts(at.beauty, at.device)
        weights = count_weights(counts, at)
        prior = partial(counts.log_prior, weights=weights)
    members, histories = [one for one, _ in trained], [history for _, history in trained]
    found = {part: candidates(members, at.beauty, part, beam, prior=prior) for part in PARTS}
    truth = {part: torch.from_numpy(at.beauty.truth(part)) for part in PARTS}
    for name, additions in wanted.items():
        mixture = chosen(
            found["validation"], truth["validation"], vectors="vectors" in additions, counts="counts" in additions
        )
        test, validation = (both_figures(found[part], truth[part], mixture) for part in PARTS)
        details = {
            "mixture": asdict(mixture),
            "counts": weights.as_dict() if weights and "counts" in additions else None,
            "within_beam": float((found["test"].items == truth["test"].unsqueeze(1)).any(1).float().mean()),
            "training": histories,
        }
        parameters = sum(history["parameters"] for history in histories)
        seconds = sum(history["seconds"] for history in histories)
        yield Row(name, test, validation, parameters, seconds, details)
