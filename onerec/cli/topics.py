"""`onerec topics`: make the topics of the table, say what differs from it, and who needs which rights on them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from onerec.cli.options import Config, Json, fail, read_settings
from onerec.errors import ExitCode, OneRecError, SettingsError

if TYPE_CHECKING:
    from onerec.kafka.rights import Right

BROKER_TIMEOUT_S = 10.0

app = typer.Typer(no_args_is_help=True, help="Make the topics, say what differs from their table, and who may do what.")
Users = Annotated[list[str] | None, typer.Option("--user", help="Only of this user; repeat it for more.")]


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


@app.command()
def rights(
    *,
    user: Users = None,
    as_commands: Annotated[
        bool, typer.Option("--commands", help="Print the kafka-acls commands that grant them.")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print it as docs/security.md holds it.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say who may do what: the least rights of each service, of producers, clients, auditors and operators."""
    from onerec.kafka import rights as table  # noqa: PLC0415

    settings = read_settings(config)
    if unknown := set(user or ()) - table.USERS.keys():
        users = ", ".join(table.USERS)
        raise fail(SettingsError(f"There is no user {', '.join(sorted(unknown))}.", f"Users are {users}."))
    found = table.rights(settings, user or tuple(table.USERS))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(right) for right in found], indent=2))
    elif as_commands:
        typer.echo("\n".join(table.commands(settings, found)))
    elif as_markdown:
        typer.echo(table.markdown(found), nl=False)
    else:
        print_rights(found)


def print_rights(found: list[Right]) -> None:
    """The rights for a person."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    shown = Table("user", "may", "on", "because", header_style="bold", box=None)
    for right in found:
        name = f"{right.resource} {right.name}{'*' if right.prefixed else ''}"
        shown.add_row(right.user, ", ".join(right.operations), name, right.why)
    Console().print(shown)
