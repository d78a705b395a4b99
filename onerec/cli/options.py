"""Options and error handling that all command lines share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onerec.errors import OneRecError
from onerec.secrets import mask_tracebacks
from onerec.settings import Settings, load_settings

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file with settings; the environment (ONEREC_…) wins over it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def fail(error: OneRecError) -> typer.Exit:
    """Print the error's sentence on stderr; raise what this returns."""
    typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
    return typer.Exit(int(error.exit_code))


def read_settings(config: Path | None) -> Settings:
    """Load the settings or end the command with exit code 2 and a sentence that names the key."""
    mask_tracebacks()
    try:
        return load_settings(config)
    except OneRecError as error:
        raise fail(error) from error
