"""`python -m bench.document`: writes the tables of docs/performance.md from bench.json."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report import Result, number, verdict
from bench.turns import ROOT

PAGE = ROOT / "docs" / "performance.md"
MARKED = re.compile(r"(<!-- measured:[^\n]*-->\n).*?(<!-- /measured -->)", re.DOTALL)
ABOUT = ("cpu", "flags", "cores", "memory_gb", "python", "torch", "confluent-kafka", "fastavro", "numpy")


def filled(page: str, results: Sequence[Result]) -> str:
    """The page with its marked part made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{tables(results)}{found[2]}", page)


def tables(results: Sequence[Result]) -> str:
    """All figures, what they were measured on, and what could not be measured."""
    lines = [
        "| bench | ours | peer | unit | ratio | of the limit | target | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result) for result in results]
    told = results[0]["conditions"] if results else {}
    about = "; ".join(f"{name} {told[name]}" for name in ABOUT if name in told)
    loads = [result["conditions"].get("load_average", 0.0) for result in results]
    lines += ["", f"{about}; load average while measuring {min(loads, default=0)} to {max(loads, default=0)}."]
    if any("brief" in result["conditions"] for result in results):
        lines += ["", "**Brief run: these figures only show that the benches work.**"]
    reasons = [f"- {one['name']}: {one['conditions']['reason']}" for one in results if "reason" in one["conditions"]]
    return "\n".join([*lines, "", *(["Not measured:", "", *reasons, ""] if reasons else [])])


def _row(result: Result) -> str:
    share = result["share_of_limit"]
    cells = (
        result["name"],
        number(result["ours"]),
        number(result["peer"]),
        result["unit"],
        number(result["ratio"]),
        "" if share is None else f"{share:.0%}",
        result["target"],
        verdict(result),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Fill the page from the file named, bench.json by default."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench.json"
    PAGE.write_text(filled(PAGE.read_text(), json.loads(source.read_text())))


if __name__ == "__main__":
    main()
