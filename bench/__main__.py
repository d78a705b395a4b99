"""`python -m bench`: measurements against what a user would take instead, side by side in one run."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from onerec.cli.options import fail
from onerec.errors import OneRecError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(  # noqa: PLR0917 - a command line
    names: Annotated[list[str] | None, typer.Argument(help="Benches; all where none is named.")] = None,
    out: Annotated[Path | None, typer.Option(help="The objects as JSON; bench.json where all are run.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each side, where a bench says nothing else.")] = 2,
    brief: Annotated[bool, typer.Option(help="Small sizes, few turns: whether the benches work.")] = False,
    keep: Annotated[bool, typer.Option(help="Write the ratios into bench/baseline.json.")] = False,
    directory: Annotated[Path, typer.Option(help="Logs and files of the runs.")] = Path("runs/bench"),
    list_names: Annotated[bool, typer.Option("--list", help="Print the names and end.")] = False,
) -> None:
    """Measure, print the objects of the named benches or the table of all, and mark what fell since the baseline."""
    from rich.console import Console  # noqa: PLC0415 - help is quick

    from bench.report import fallen, read_baseline, show, write  # noqa: PLC0415
    from bench.report import keep as keep_ratios  # noqa: PLC0415
    from bench.run import chosen, run  # noqa: PLC0415

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    results: list[dict[str, Any]] = []
    target = out or (None if names else Path("bench.json"))
    try:
        benches, baseline = chosen(names or []), read_baseline()
        if list_names:
            for one in benches:
                typer.echo(f"{one.name}: {one.what}")
            return
        for one in benches:
            results.append(run(one, directory=directory, threads=threads, brief=brief))
            if names:
                typer.echo(json.dumps(results[-1], indent=2))
            if target is not None:  # after each, so that what was measured is not lost
                write(results, target)
        if keep:
            keep_ratios(results)
    except OneRecError as error:
        raise fail(error) from error
    except KeyboardInterrupt:
        typer.echo(f"stopped; the logs are in {directory}")
        raise typer.Exit(130) from None
    show(results, fallen(results, baseline), Console(stderr=bool(names), width=None if os.isatty(1) else 220))


if __name__ == "__main__":
    app(prog_name="python -m bench")
