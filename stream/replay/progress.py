"""How far the replay is: a progress bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG = logging.getLogger(__name__)
PLAIN_EVERY_S = 5.0

Report = Callable[[int, str], None]
"""Called with how many records have been sent and a note."""


@contextmanager
def progress(what: str, total: int, console: Console | None = None) -> Iterator[Report]:
    """Show how `total` records of `what` go out."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _plain(what, total)
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=total, note="")
        yield lambda sent, note: bars.update(task, completed=sent, note=note)


def _plain(what: str, total: int) -> Report:
    started_s = time.monotonic()
    next_s = started_s + PLAIN_EVERY_S

    def report(sent: int, note: str) -> None:
        nonlocal next_s
        now_s = time.monotonic()
        if now_s < next_s and sent < total:
            return
        next_s = now_s + PLAIN_EVERY_S
        rate = sent / max(now_s - started_s, 1e-9)
        LOG.info("%s: %d of %d records, %.0f/s%s", what, sent, total, rate, f", {note}" if note else "")

    return report


def event_time(time_ms: int) -> str:
    """Event time for people, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%d %b %H:%M")
