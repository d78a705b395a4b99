"""`python -m audit`: reads the topics afresh and exits with 4 where anything is lost, double or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onerec.cli.options import Config, fail, read_settings
from onerec.errors import ExitCode, OneRecError
from onerec.service import configure_logging

PLAIN_WIDTH = 160
"""Columns where the output is no terminal."""
app = typer.Typer(no_args_is_help=False, add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def audit(
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all findings to this file as JSON.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Places shown of each line and kind.")] = 5,
    broker_repeats_allowed: Annotated[
        bool,
        typer.Option(
            "--broker-repeats-allowed",
            help="The broker serves what was aborted, as the embedded one does: sessions that come again under the "
            "same id are then repetitions, which readers drop.",
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Audit the topics as of now."""
    from rich.console import Console  # noqa: PLC0415

    from audit.auditor import run  # noqa: PLC0415 - loads the Kafka client
    from audit.table import show  # noqa: PLC0415

    settings = read_settings(config)
    configure_logging("audit")
    try:
        findings = run(settings, broker_repeats_allowed=broker_repeats_allowed, first=first)
    except OneRecError as error:
        raise fail(error) from error
    console = Console()
    show(findings, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    if as_json is not None:
        as_json.write_text(json.dumps(findings.as_dict(), indent=2) + "\n")
    if not findings.clean:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))


if __name__ == "__main__":
    app(prog_name="python -m audit")
