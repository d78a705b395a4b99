"""`python -m inference worker|sampler|kernels`: each command loads only what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from onerec.cli.options import Config, read_settings
from onerec.errors import DependencyMissingError
from onerec.service import run_service

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def worker(config: Config = None) -> None:
    """Answer requests with recommendations from the newest version of the model."""
    from inference.worker.service import run_worker  # noqa: PLC0415 - loads torch and RocksDB

    settings = read_settings(config)
    raise typer.Exit(run_service("worker", settings, lambda stop: run_worker(settings, stop)))


@app.command()
def sampler(config: Config = None) -> None:
    """Turn a share of the live requests into preference pairs for the trainer."""
    from inference.sampler.service import run  # noqa: PLC0415 - loads torch and Faust

    settings = read_settings(config)
    raise typer.Exit(run(settings))


@app.command()
def kernels(required: Annotated[bool, typer.Option(help="Fail where they cannot be compiled.")] = False) -> None:
    """Compile the decode engine's kernels for this processor and say which of them decode here.

    Without them torch decodes, more slowly.
    """
    from inference.engine.native import binding, calibration  # noqa: PLC0415 - loads torch

    try:
        for built in binding.build():
            typer.echo(f"decode kernels: {built}")
        for name, sentence in calibration.sentences():
            typer.echo(f"preset {name}: {sentence}.")
    except DependencyMissingError as error:
        typer.echo(f"{error} Until then torch decodes.")
        raise typer.Exit(int(error.exit_code) if required else 0) from error


if __name__ == "__main__":
    app(prog_name="python -m inference")
