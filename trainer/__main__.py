"""`python -m trainer run|seed`."""

from __future__ import annotations

import typer

from onerec.cli.options import Config, read_settings
from onerec.service import run_service

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def run(config: Config = None) -> None:
    """Train without end: seed where there is no checkpoint, then learn from the stream and publish."""
    _serve(config, only_seed=False)


@app.command()
def seed(config: Config = None) -> None:
    """Train and publish the seed (or resume), then end."""
    _serve(config, only_seed=True)


def _serve(config: Config, *, only_seed: bool) -> None:
    from trainer.service import run_trainer  # noqa: PLC0415 - loads torch

    settings = read_settings(config)
    raise typer.Exit(run_service("trainer", settings, lambda stop: run_trainer(settings, stop, only_seed=only_seed)))


if __name__ == "__main__":
    app(prog_name="python -m trainer")
