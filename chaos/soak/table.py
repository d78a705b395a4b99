"""The findings of a soak as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from chaos.soak.trend import Trend
from chaos.soak.verdict import Findings


def show(findings: Findings, console: Console) -> None:
    """One line a process, one line a folder."""
    names = (
        "process",
        "lives",
        "peak MB",
        "MB an hour (95 %)",
        "heap in use",
        "over h",
        "files",
        "threads",
        "series",
        "",
    )
    processes = Table(*names, box=None)
    for one in findings.processes:
        more = (f"{one.more[what]:+d}" if one.more else "" for what in ("descriptors", "threads", "series"))
        hours = "" if one.memory is None else f"{one.memory.hours:.2f}"
        slopes = (slope(one.memory), slope(one.used))
        processes.add_row(one.service, str(one.lives), f"{one.peak_mb:.0f}", *slopes, hours, *more, one.verdict)
    folders = Table("folder", "MB at most, by thirds of the run", "files at most", "", box=None)
    for each in findings.folders:
        thirds = ", ".join(f"{size:.1f}" for size in each.thirds_mb)
        folders.add_row(each.folder, thirds, str(each.files), each.verdict)
    console.print(processes)
    console.print(folders)


def slope(memory: Trend | None) -> str:
    """A slope with its interval."""
    return "" if memory is None else f"{memory.slope:+.1f} ({memory.low:+.1f} to {memory.high:+.1f})"
