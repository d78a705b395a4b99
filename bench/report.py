"""bench.json, the table that a person reads, and what fell since the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.bench import FELL
from onerec.errors import SettingsError

Result = Mapping[str, Any]
BASELINE = Path(__file__).with_name("baseline.json")


def kind(result: Result) -> str:
    """What a baseline is kept for: the best instructions that the processor has."""
    features = str(result["conditions"].get("features", ""))
    return next((one for one in ("amx_bf16", "avx512_bf16", "avx2") if one in features), "other")


def read_baseline(file: Path = BASELINE) -> dict[str, dict[str, float]]:
    """Ratios by kind of processor and name. Raises SettingsError for a file that is none."""
    if not file.exists():
        return {}
    try:
        ratios: dict[str, dict[str, float]] = json.loads(file.read_text())
        if not all(isinstance(ratio, int | float) for of in ratios.values() for ratio in of.values()):
            raise ValueError("ratios are numbers")
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{file} holds no baseline: {error}.", "Write it by --keep.") from error
    return ratios


def fallen(results: Sequence[Result], baseline: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Share of the baseline's ratio that is left, of those whose ratio fell by more than a tenth."""
    left = {}
    for result in results:
        before, ratio = baseline.get(kind(result), {}).get(result["name"]), result["ratio"]
        if before and ratio is not None and ratio < FELL * before:
            left[result["name"]] = ratio / before
    return left


def keep(results: Sequence[Result], file: Path = BASELINE) -> None:
    """Write the ratios that were measured into the baseline; the others stay. Raises SettingsError for brief ones."""
    if any("brief" in result["conditions"] for result in results):
        raise SettingsError("Brief figures are no baseline.", "Run without --brief.")
    ratios = read_baseline(file)
    for result in results:
        if result["ratio"] is not None:
            ratios.setdefault(kind(result), {})[result["name"]] = result["ratio"]
    file.write_text(json.dumps(ratios, indent=2, sort_keys=True) + "\n")


def write(results: Sequence[Result], file: Path) -> None:
    """As a list of objects."""
    file.write_text(json.dumps(list(results), indent=2) + "\n")


def show(results: Sequence[Result], fell: Mapping[str, float], console: Console) -> None:
    """One line a bench."""
    table = Table("bench", "ours", "peer", "unit", "ratio", "of the limit", "target", "met", "", box=None)
    for result in results:
        figures = [number(result[key]) for key in ("ours", "peer")]
        marks = [f"FELL to {fell[result['name']]:.0%} of the baseline"] if result["name"] in fell else []
        marks += [result["conditions"]["reason"]] if "reason" in result["conditions"] else []
        share = result["share_of_limit"]
        table.add_row(
            result["name"],
            *figures,
            result["unit"],
            number(result["ratio"]),
            "" if share is None else f"{share:.0%}",
            result["target"],
            verdict(result),
            "; ".join(marks),
        )
    console.print(table)


def number(value: float | None) -> str:
    """Short; a dash for what was not measured."""
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def verdict(result: Result) -> str:
    """Whether the target is met, in a word."""
    return {True: "yes", False: "NO", None: "–"}[result["met"]]
