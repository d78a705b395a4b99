"""Which of the paper's orderings of rows come out here: differences between two rows of the same seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from evaluation.pages import grid
from evaluation.table1.accuracy import VISITS
from onerec.model.reward import OBJECTIVES

ACCURACY = "recall_at_10"
AT_VISITS = f"{VISITS}{ACCURACY}"
COLUMNS = (*OBJECTIVES, ACCURACY, AT_VISITS)
ERRORS = 2.0
"""Standard errors that a difference has to be away from zero to be one."""
PAPERS = (
    ("tiger-l", "sasrec"),
    ("tiger-l", "bert4rec"),
    ("tiger-l", "fdsa"),
    ("onerec-s", "tiger-s"),
    ("onerec-l", "tiger-l"),
    ("onerec-l", "onerec-s"),
    ("onerec-l-dpo", "onerec-l"),
    ("onerec-l-ipa", "onerec-l-dpo"),
)
"""Of each pair the former is above the latter in the paper's Table 1, in swt and vtr at least (mean)."""
OURS = (
    ("onerec-l", "cooccurrence"),
    ("onerec-l", "sasrec-softmax"),
    ("onerec-l", "cascade-crm"),
    ("onerec-l", "cascade-sasrec"),
    ("tiger-rqvae-s", "tiger-s"),
    ("onerec-l-lazy", "onerec-l"),
    ("onerec-l-dpo", "onerec-l-ntp"),
    ("onerec-l-ipa", "onerec-l-ntp"),
)
"""Pairs that the paper's table does not have: stronger baselines, other ids, another decoder, and preference against
only going on."""


def orderings(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair that has seeds in common, by column [difference of the means, its standard error over seeds].

    A column that a file lacks is left out: rows that were published before have none by visit.
    """
    by_row: dict[str, dict[int, dict[str, float]]] = {}
    for file in files:
        columns = {name: file[name]["mean"] for name in OBJECTIVES}
        columns |= {name: file[name] for name in (ACCURACY, AT_VISITS) if name in file}
        by_row.setdefault(file["row"], {})[file["seed"]] = columns
    found = []
    for above, below in (*PAPERS, *OURS):
        seeds = sorted(by_row.get(above, {}).keys() & by_row.get(below, {}).keys())
        if seeds:
            pairs = [(by_row[above][seed], by_row[below][seed]) for seed in seeds]
            known = [name for name in COLUMNS if all(name in row for pair in pairs for row in pair)]
            columns = {name: paired([high[name] - low[name] for high, low in pairs]) for name in known}
            found.append(
                {"above": above, "below": below, "in_paper": (above, below) in PAPERS, "seeds": seeds} | columns
            )
    return found


def paired(differences: list[float]) -> list[float]:
    """Mean and standard error; of one seed the error is 0 and says nothing."""
    values = np.array(differences)
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return [float(values.mean()), error]


def verdict(difference: list[float], seeds: int) -> str:
    """Whether the former row is above the latter: yes, no, or open where the seeds do not tell."""
    mean, error = difference
    if seeds < 2 or abs(mean) <= ERRORS * error:
        return "open"
    return "yes" if mean > 0 else "no"


def orderings_table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    if not found:
        return ""
    head = ["row", "above row", "in the paper", *OBJECTIVES, "Recall@10", "Recall@10 by visit"]
    rows = []
    for one in found:
        cells = [_cell(one[name], len(one["seeds"])) if name in one else "-" for name in COLUMNS]
        rows.append([one["above"], one["below"], "yes" if one["in_paper"] else "-", *cells])
    return (
        "\n### Which orderings come out?\n\nDifferences of means between two rows of the same seeds, ± the standard "
        "error over seeds. `yes` and `no` are differences of more than two standard errors, which with three seeds is "
        "weak evidence; all else is open. The paper has no Recall.\n\n" + grid(head, rows)
    )


def _cell(difference: list[float], seeds: int) -> str:
    mean, error = difference
    return f"{mean:+.4f} ± {error:.4f} {verdict(difference, seeds)}"
