"""chaos.json, and the table that a person reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.fault import Fault, Outcome


def report(broker: str, outcomes: Sequence[tuple[Fault, Outcome]], **more: Any) -> dict[str, Any]:
    """The fields of chaos.json; `more` is added as it is."""
    faults: dict[str, Any] = {}
    for fault, outcome in outcomes:
        faults[fault.name] = {
            "runs": 1,
            "lost": outcome.lost,
            "duplicated": outcome.duplicated,
            "wrong": outcome.wrong,
            "identical": outcome.identical,
            "kills": outcome.kills,
            "vacuous": outcome.vacuous,
            "broken": outcome.broken,
            "injected": fault.injected,
            "promise": fault.promise,
            "seen": outcome.seen,
        }
    every = [outcome for _, outcome in outcomes]
    return {
        "broker": broker,
        "kills": sum(outcome.kills for outcome in every),
        "lost": sum(outcome.lost for outcome in every),
        "duplicated": sum(outcome.duplicated for outcome in every),
        "wrong": sum(outcome.wrong for outcome in every),
        "identical": bool(every) and all(outcome.identical for outcome in every),
        "vacuous": sum(outcome.vacuous for outcome in every),
        "broken": sum(bool(outcome.broken) for outcome in every),
        "faults": faults,
        **more,
    }


def write(found: dict[str, Any], file: Path) -> None:
    """As JSON."""
    file.write_text(json.dumps(found, indent=2) + "\n")


def show(found: dict[str, Any], console: Console) -> None:
    """One line a fault."""
    table = Table(
        "fault", "kills", "lost", "twice", "wrong", "same bits", "what was seen", header_style="bold", box=None
    )
    for name, fault in found["faults"].items():
        figures = (str(fault[key]) for key in ("kills", "lost", "duplicated", "wrong"))
        table.add_row(name, *figures, "yes" if fault["identical"] else "NO", fault["seen"])
    console.print(table)
    for name, reason in found.get("left_out", {}).items():
        console.print(f"left out: {name}, {reason}")
    same = "the same bits" if found["identical"] else "NOT the same bits"
    console.print(
        f"{found['broker']}: {found['kills']} kills, {found['lost']} lost, {found['duplicated']} twice, "
        f"{found['wrong']} wrong, {same}"
    )
