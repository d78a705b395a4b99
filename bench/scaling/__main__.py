"""`python -m bench.scaling`: rates of 1, 2 and 4 workers and joiners of one consumer group."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from onerec.cli.options import fail
from onerec.errors import OneRecError, SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
KINDS = ("workers", "joiners")


@app.command()
def scaling(
    kinds: Annotated[list[str] | None, typer.Argument(help="workers, joiners; both where none is named.")] = None,
    processes: Annotated[str, typer.Option(help="How many, in turn.")] = "1,2,4",
    brief: Annotated[bool, typer.Option(help="Three minutes in all; rates are rough.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of scaling.json and of logs.")] = Path("runs/scaling"),
    document: Annotated[bool, typer.Option(help="Write the table of docs/scaling.md.")] = False,
) -> None:
    """Run each number of processes alone on this machine, print the table and write scaling.json."""
    from bench.conditions import conditions  # noqa: PLC0415 - help is quick
    from bench.scaling import joiners, workers  # noqa: PLC0415
    from bench.scaling.document import write  # noqa: PLC0415
    from bench.scaling.group import table  # noqa: PLC0415

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    try:
        counts = _counts(processes)
        if unknown := sorted(set(kinds or ()) - set(KINDS)):
            raise SettingsError(f"There is no kind {', '.join(unknown)}.", f"Choose among {', '.join(KINDS)}.")
        told: dict[str, Any] = {"cores": os.cpu_count(), "conditions": conditions(brief=brief)}
        for kind in kinds or KINDS:
            shutil.rmtree(out / kind, ignore_errors=True)
            if kind == "workers":
                groups, told["broker"] = workers.measure(out / kind, counts, 4.0 if brief else 15.0)
            else:
                groups, told["broker"] = joiners.measure(out / kind, counts, 400_000 if brief else 1_500_000)
            told[kind] = table(groups)
            (out / "scaling.json").write_text(json.dumps(told, indent=2) + "\n")
            for row in told[kind]:
                typer.echo(f"{kind}: {json.dumps(row)}")
        if document:
            write(told)
    except OneRecError as error:
        raise fail(error) from error


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"{text!r} is no list of numbers.", "Write it as 1,2,4.") from error
    if min(counts) < 1 or counts != sorted(set(counts)):
        raise SettingsError(f"{text!r} is no ascending list of numbers of processes.", "Write it as 1,2,4.")
    return counts


if __name__ == "__main__":
    app(prog_name="python -m bench.scaling")
