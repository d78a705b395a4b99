"""Findings for a person."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from audit.findings import FAILURES, Findings, Kind
from schemas.topics import ACTIONS, HISTORIES, IMPRESSIONS, MODEL_VERSIONS, SESSIONS, TRAINER_JOURNAL

ORDER = (
    IMPRESSIONS.name,
    ACTIONS.name,
    "dead letters",
    SESSIONS.name,
    HISTORIES.name,
    "sessions learned",
    "preferences learned",
    TRAINER_JOURNAL.name,
    MODEL_VERSIONS.name,
)
NEWEST_VERSIONS = 12


def show(findings: Findings, console: Console, *, versions: int = NEWEST_VERSIONS) -> None:
    """Print the lines, the first places of each kind, the newest versions and the verdict."""
    console.print(_lines(findings))
    for place in findings.places:
        style = "red" if place.kind in FAILURES else "dim"
        console.print(
            f"{place.kind:>8}  {place.line}: {place}", style=style, highlight=False, markup=False, soft_wrap=True
        )
    if findings.versions:
        console.print(_versions(findings, versions))
    for note in findings.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    speed = findings.events / findings.seconds if findings.seconds else 0.0
    console.print(f"{findings.events} events in {findings.seconds:.1f} s ({speed:,.0f} events/s)", highlight=False)
    verdict = f"{findings.lost} lost, {findings.duplicated} double, {findings.wrong} wrong"
    console.print(verdict, style="green" if findings.clean else "bold red", highlight=False)


def _lines(findings: Findings) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("")
    for name in ("expected", "found", *(kind.value for kind in Kind)):
        table.add_column(name, justify="right")
    rank = {name: number for number, name in enumerate(ORDER)}
    for name in sorted(findings.lines, key=lambda name: (rank.get(name, len(rank)), name)):
        line = findings.lines[name]
        counts = [_count(line.counts[kind], kind) for kind in Kind]
        table.add_row(name, str(line.expected or ""), str(line.found), *counts)
    return table


def _count(count: int, kind: Kind) -> str:
    if not count:
        return "[dim]0[/]" if kind in FAILURES else ""
    return f"[bold red]{count}[/]" if kind in FAILURES else str(count)


def _versions(findings: Findings, newest: int) -> Table:
    title = (
        f"the newest {newest} of {len(findings.versions)} versions" if len(findings.versions) > newest else "versions"
    )
    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for name in ("version", "step", "sessions", "pairs", "announced"):
        table.add_column(name, justify="right")
    table.add_column("")
    for version in findings.versions[-newest:]:
        numbers = (version.version, version.step, version.sessions, version.pairs)
        table.add_row(*map(str, numbers), "yes" if version.announced else "no", f"[red]{version.problem}[/]")
    return table
