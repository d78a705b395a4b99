"""`onerec topics`: make the topics of the table, and say what differs from it."""

from __future__ import annotations

import json

import typer

from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import ExitCode, OneRecError

BROKER_TIMEOUT_S = 10.0

app = typer.Typer(no_args_is_help=True, help="Make the topics and say what differs from the table of topics.")


@app.command()
def create(config: Config = None) -> None:
    """Make the topics that are missing; existing ones stay as they are. Exit code 3 without a broker."""
    from onerec.kafka.admin import create_topics, wait_for_broker  # noqa: PLC0415

    settings = read_settings(config)
    try:
        wait_for_broker(settings.kafka, BROKER_TIMEOUT_S)
        made = create_topics(settings.kafka)
    except OneRecError as error:
        raise fail(error) from error
    for name in made:
        typer.echo(f"made {name}")
    if not made:
        typer.echo("All topics exist; `onerec topics check` says whether they are as they should be.")


@app.command()
def check(config: Config = None, as_json: Json = False) -> None:
    """Say what differs: missing topics, partitions, replicas, settings. Exit code 4 where anything does."""
    from onerec.kafka.admin import check_topics, wait_for_broker  # noqa: PLC0415

    settings = read_settings(config)
    try:
        wait_for_broker(settings.kafka, BROKER_TIMEOUT_S)
        differences = check_topics(settings.kafka)
    except OneRecError as error:
        raise fail(error) from error
    if as_json:
        typer.echo(json.dumps({"differences": differences}))
    elif differences:
        typer.echo("\n".join(differences))
    else:
        typer.echo("All topics are as they should be.")
    if differences:
        raise typer.Exit(int(ExitCode.CHECK_FAILED))
