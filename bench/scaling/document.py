"""The table of docs/scaling.md, between its own marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.turns import ROOT

PAGE = ROOT / "docs" / "scaling.md"
MARKED = re.compile(r"(<!-- scaling:[^\n]*-->\n).*?(<!-- /scaling -->)", re.DOTALL)
COLUMNS = ("processes", "per_s", "of_linear", "cpu_ms_each", "of_linear_cpu", "used_cores")


def table(told: Mapping[str, Any]) -> str:
    """One line for each kind and number of processes, and what they were measured on."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for kind in ("workers", "joiners"):
        lines += [f"| {kind} | {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in told.get(kind, ())]
    conditions = told["conditions"]
    about = f"{told['cores']} cores of {conditions.get('cpu')}, load average {conditions['load_average']} at the start"
    rough = " **Brief run: rates are rough.**" if "brief" in conditions else ""
    return "\n".join([*lines, "", f"{about}; broker: {told['broker']}.{rough}", ""])


def write(told: Mapping[str, Any]) -> None:
    """Fill the page."""
    PAGE.write_text(MARKED.sub(lambda found: f"{found[1]}{table(told)}{found[2]}", PAGE.read_text()))
