"""The codebook's report for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from stream.tokenizer.report import Report

COLUMNS = (
    "level",
    "codes used",
    "entropy / ln K",
    "items a code",
    "prefixes",
    "sharing before",
    "sharing after",
    "error",
    "same tag",
    "sweeps",
    "unsettled",
)


def print_report(report: Report, console: Console | None = None) -> None:
    """One row a level, and what the policy moved below."""
    table = Table(
        title=f"Codebook {report.version}: {report.items:,} items of width {report.width}, "
        f"{report.levels} levels of {report.codes} codes"
    )
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in report.by_level:
        table.add_row(
            str(row.level),
            f"{row.codes_used:.1%}",
            f"{row.entropy:.3f}",
            f"{row.smallest}-{row.largest}",
            f"{row.prefixes:,}",
            f"{row.sharing_before:,}",
            f"{row.sharing_after:,}",
            f"{row.error:.3f}",
            "-" if row.same_tag is None else f"{row.same_tag:.2f}",
            str(row.sweeps),
            f"{row.unsettled:,}",
        )
    console = console or Console()
    console.print(table)
    by_level = ", ".join(f"{count:,} at level {level}" for level, count in enumerate(report.moved_by_level, 1))
    console.print(
        f"{report.moved_items:,} items ({report.moved_items / report.items:.1%}) wanted an id in use: {by_level}. "
        f"Error {report.error_before:.3f} before, {report.error_after:.3f} after. "
        f"{report.skipped_items:,} items skipped. Fitted in {report.fit_s:.1f} s."
    )
