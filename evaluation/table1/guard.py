"""Does alignment cost accuracy? Preference rows against the row that takes the same steps without pairs."""

from __future__ import annotations

from typing import Any

from evaluation.pages import grid
from evaluation.table1.accuracy import VISITS
from evaluation.table1.orderings import paired
from evaluation.table1.preference import RECIPES

CONTROL = "onerec-l-ntp"
MAY_FALL = 0.01
"""Relative loss of Recall@10 against the control that a preference row may have."""
GUARDED = {"recall_at_10": "Recall@10", f"{VISITS}recall_at_10": "Recall@10 by visit"}


def guard(files: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By preference row and column the change relative to the control, over the seeds that both have it of.

    `falls` says whether it is more than may be.
    """
    names = [name for name in (f"onerec-l-{recipe}" for recipe in RECIPES) if name != CONTROL]
    found: dict[str, dict[str, Any]] = {}
    for column in GUARDED:
        recalls: dict[str, dict[int, float]] = {}
        for file in files:
            if column in file:
                recalls.setdefault(file["row"], {})[file["seed"]] = file[column]
        for name in names:
            changed = _change(recalls.get(name, {}), recalls.get(CONTROL, {}))
            if changed:
                found.setdefault(name, {})[column] = changed
    return found


def _change(own: dict[int, float], control: dict[int, float]) -> dict[str, Any] | None:
    seeds = sorted(control.keys() & own.keys())
    usual = sum(control[seed] for seed in seeds)
    if usual == 0:
        return None
    change = sum(own[seed] for seed in seeds) / usual - 1
    _, error = paired([(own[seed] - control[seed]) * len(seeds) / usual for seed in seeds])
    return {"change": change, "standard_error": error, "falls": change < -MAY_FALL, "seeds": seeds}


def guard_table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    if not found:
        return ""
    rows = [[name, *(_cell(own.get(column)) for column in GUARDED)] for name, own in found.items()]
    return (
        f"\n### Does alignment cost accuracy?\n\nAgainst `{CONTROL}` over the same seeds, ± the standard error of the "
        "differences in percentage points. The guard holds where no more than 1 % is lost.\n\n"
        + grid(["row", *GUARDED.values()], rows)
    )


def _cell(own: dict[str, Any] | None) -> str:
    if own is None:
        return "-"
    return f"{own['change']:+.1%} ± {100 * own['standard_error']:.1f} {'falls' if own['falls'] else 'holds'}"
