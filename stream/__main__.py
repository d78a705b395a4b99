"""`python -m stream joiner|tokenizer|codebook|replay`: each command loads only what it needs."""

from __future__ import annotations

import typer

from onerec.cli.options import Config, read_settings
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


if __name__ == "__main__":
    app(prog_name="python -m stream")
