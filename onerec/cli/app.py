"""Puts the sub-commands together. A sub-command's module is loaded when it is called."""

from __future__ import annotations

import typer

from onerec.cli.audit import audit
from onerec.cli.check import check
from onerec.cli.config import config
from onerec.cli.dead_letters import app as dead_letters
from onerec.cli.demo import demo
from onerec.cli.model import model
from onerec.cli.recommend import recommend
from onerec.cli.replay import replay
from onerec.cli.topics import app as topics
from onerec.cli.up import up
from onerec.cli.versions import app as versions

app = typer.Typer(
    name="onerec",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and serve a generative recommender continuously from Kafka.",
)
app.command()(demo)
app.command()(up)
app.add_typer(topics, name="topics")
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(replay)
app.command()(recommend)
app.add_typer(versions, name="versions")
app.add_typer(dead_letters, name="dead-letters")
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(audit)
app.command()(model)
app.command()(config)
app.command()(check)


def main() -> None:
    """Entry point of the `onerec` command."""
    app(prog_name="onerec")
