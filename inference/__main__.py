"""`python -m inference worker|sampler`: each command loads only what it needs."""

from __future__ import annotations

import typer

from onerec.cli.options import Config, read_settings
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


if __name__ == "__main__":
    app(prog_name="python -m inference")
