"""The codebook's report for a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from stream.tokenizer.report import Report

COLUMNS = ("level", "used", "entropy", "items/code", "prefixes", "shared by", "error", "same tag")
LEGEND = """\
used: codes that an item has. entropy: over ln K, 1 is balanced. prefixes:
different codes up to the level. shared by: items whose prefix others have,
before > after the collision policy. error: variance left. same tag: of the
pairs of items with one prefix."""


def print_report(report: Report, console: Console | None = None) -> None:
    """One row a level, and what the collision policy did below."""
    console = console or Console()
    table = Table(
        title=f"Codebook {report.version}: {report.items:,} items of width {report.width}, "
        f"{report.levels} levels of {report.codes} codes",
        box=box.SIMPLE,
        caption=LEGEND,
        caption_justify="left",
        padding=(0, 1, 0, 0),
        collapse_padding=True,
    )
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.by_level:
        same_tag = "-" if row.same_tag is None or not row.sharing_after else f"{row.same_tag:.2f}"
        shared = f"{row.sharing_before:,} > {row.sharing_after:,}"
        if row.sharing_before == row.sharing_after:
            shared = f"{row.sharing_after:,}"
        table.add_row(
            str(row.level),
            f"{row.codes_used:.1%}",
            f"{row.entropy:.3f}",
            f"{row.smallest}-{row.largest}",
            f"{row.prefixes:,}",
            shared,
            f"{row.error:.3f}",
            same_tag,
        )
    console.print(table)
    by_level = ", ".join(f"{count:,} from level {level} on" for level, count in enumerate(report.moved_by_level, 1))
    console.print(
        f"{report.moved_items:,} items ({report.moved_items / report.items:.1%}) wanted an id in use and were given "
        f"the nearest free one: {by_level}. Error {report.error_before:.3f} before, {report.error_after:.3f} after. "
        f"{report.skipped_items:,} items skipped. Fitted in {report.fit_s:.1f} s."
    )
