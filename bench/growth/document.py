"""The table of growth in docs/performance.md, between its own marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.document import PAGE

PICTURE = PAGE.with_name("growth.png")
MARKED = re.compile(r"(<!-- growth:[^\n]*-->\n).*?(<!-- /growth -->)", re.DOTALL)


def filled(page: str, told: Mapping[str, Any]) -> str:
    """The page with the table made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table(told['curves'], told['conditions'])}{found[2]}", page)


def table(curves: Sequence[Mapping[str, Any]], conditions: Mapping[str, Any]) -> str:
    """One line a curve."""
    lines = [
        "| larger | CPU ms of a batch | exponent, all and upper half | may grow with | because |",
        "|---|---|---|---|---|",
    ]
    for curve in curves:
        costs = ", ".join(
            f"{size:,}: {cost:,.3g}" for size, cost in zip(curve["sizes"], curve["cpu_ms_a_batch"], strict=True)
        )
        exponents = f"{curve['exponent']:.2f}, **{curve['exponent_last']:.2f}**"
        cells = (f"{curve['name']} ({curve['unit']})", costs, exponents, f"{curve['bound']:g}", curve["why"])
        lines.append(f"| {' | '.join(cells)} |")
    about = f"{conditions.get('cpu')}; one thread; products of {conditions.get('products')}."
    brief = ["", "**Brief run: few sizes.**"] if "brief" in conditions else []
    return "\n".join([*lines, "", about, *brief, ""])


def write(told: Mapping[str, Any]) -> None:
    """Fill docs/performance.md."""
    PAGE.write_text(filled(PAGE.read_text(), told))
