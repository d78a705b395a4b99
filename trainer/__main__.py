"""`python -m trainer run|seed|reproduce|kernels`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import DependencyMissingError, ExitCode, OneRecError, SettingsError
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


@app.command()
def reproduce(
    version: Annotated[int | None, typer.Argument(min=1, help="Number of the version.")] = None,
    *,
    through: Annotated[int | None, typer.Option(min=1, help="And all up to this one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All versions that the journal names.")] = False,
    from_seed: Annotated[bool, typer.Option("--from-seed", help="Begin at the seed, not at a checkpoint.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a version again from a checkpoint or the seed, the journal and the log, and compare SHA-256.

    It only reads. Exit 0: identical, or, on another machine kind than the journal names, within the stated bound;
    4: different, or journal and log are not whole.
    """
    from trainer import reproduction_report as report  # noqa: PLC0415 - loads torch
    from trainer.ranks import joined  # noqa: PLC0415
    from trainer.reproduce import reproduce as make_again  # noqa: PLC0415
    from trainer.spread import follow  # noqa: PLC0415

    settings = read_settings(config)
    console = Console(stderr=True)
    try:
        versions = _versions(version, through, every=every)
        with joined(settings) as ranks:
            if ranks is not None and ranks.rank:
                follow(ranks)
                return
            with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
                task = progress.add_task("steps", total=None)
                found = make_again(
                    settings,
                    versions,
                    from_seed=from_seed,
                    on_progress=lambda step, last: progress.update(task, completed=step, total=last),
                    ranks=ranks,
                )
    except OneRecError as error:
        raise fail(error) from error
    if as_json:
        typer.echo(json.dumps(report.as_json(found)))
    else:
        Console().print(report.table(found))
        for sentence in report.sentences(found):
            typer.echo(sentence)
    raise typer.Exit(ExitCode.DONE if found.passed else ExitCode.CHECK_FAILED)


@app.command()
def kernels(required: Annotated[bool, typer.Option(help="Fail where they cannot be compiled.")] = False) -> None:
    """Compile the training kernels for this processor and say whether a trainer uses them here.

    Without them torch computes, more slowly.
    """
    from onerec.kernels import binding, check  # noqa: PLC0415 - loads torch

    try:
        typer.echo(f"training kernels: {binding.build()}")
    except DependencyMissingError as error:
        typer.echo(f"{error} Until then torch computes.")
        raise typer.Exit(int(error.exit_code) if required else 0) from error
    if check.checked() is None:
        typer.echo("They do not agree with torch, or cannot be loaded: torch computes.")
        raise typer.Exit(int(ExitCode.CHECK_FAILED) if required else 0)


def _versions(version: int | None, through: int | None, *, every: bool) -> list[int] | None:
    """The numbers asked for; None for all."""
    if every and version is None and through is None:
        return None
    if version is None or every or (through or version) < version:
        raise SettingsError(
            "It is not clear which versions to reproduce.", "Give N, N --through M with M from N on, or --all."
        )
    return list(range(version, (through or version) + 1))


def _serve(config: Config, *, only_seed: bool) -> None:
    from trainer.ranks import is_first  # noqa: PLC0415 - loads torch
    from trainer.service import run_trainer  # noqa: PLC0415

    settings = read_settings(config)
    code = run_service(
        "trainer", settings, lambda stop: run_trainer(settings, stop, only_seed=only_seed), metrics=is_first()
    )
    raise typer.Exit(code)


if __name__ == "__main__":
    app(prog_name="python -m trainer")
