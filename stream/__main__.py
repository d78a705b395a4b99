"""`python -m stream joiner|tokenizer|codebook|replay|compile`: each command loads only what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from onerec.cli.options import Config, Json, read_settings
from onerec.errors import DependencyMissingError
from onerec.service import run_service
from stream.replay.cli import replay

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.command()(replay)


@app.command()
def joiner(config: Config = None) -> None:
    """Join impressions and actions into sessions and histories, exactly once."""
    from stream.joiner.service import run_joiner  # noqa: PLC0415 - loads RocksDB

    settings = read_settings(config)
    raise typer.Exit(run_service("joiner", settings, lambda stop: run_joiner(settings, stop)))


@app.command()
def compile(required: Annotated[bool, typer.Option(help="Fail where it cannot be compiled.")] = False) -> None:  # noqa: A001 - a command's name
    """Compile the joiner's join for this machine; without it Python joins, more slowly."""
    from stream.joiner.native import binding  # noqa: PLC0415 - loads numpy

    try:
        typer.echo(f"compiled join: {binding.build()}")
    except DependencyMissingError as error:
        typer.echo(f"{error} Until then Python joins.")
        raise typer.Exit(int(error.exit_code) if required else 0) from error


@app.command()
def tokenizer(config: Config = None) -> None:
    """Give items their semantic ids as they come, by the newest codebook."""
    from stream.tokenizer.service import run_tokenizer  # noqa: PLC0415 - loads Faust

    raise typer.Exit(run_tokenizer(read_settings(config)))


@app.command()
def codebook(
    config: Config = None,
    report: Annotated[bool, typer.Option("--report", help="Print what the codebook is worth as a table.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a codebook of semantic ids on the items that are published, and save it as the next version."""
    from stream.tokenizer.job import run_codebook  # noqa: PLC0415 - loads numpy

    raise typer.Exit(run_codebook(read_settings(config), report=report, as_json=as_json))


if __name__ == "__main__":
    app(prog_name="python -m stream")
