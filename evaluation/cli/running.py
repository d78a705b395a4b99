"""What looks at the running loop: the prequential evaluation and the report of the topics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onerec.cli.options import Config, fail, read_settings
from onerec.errors import OneRecError
from onerec.service import configure_logging, run_service


def prequential(
    report: Annotated[Path | None, typer.Option(help="Write the figures to this file as JSON.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only the baselines, on the log that ships with this, without Kafka.")
    ] = False,
    events: Annotated[int | None, typer.Option(min=1, help="Offline: so many exposures; all by default.")] = None,
    config: Config = None,
) -> None:
    """Test every visit before it is learned from: live system, frozen seed and baselines on the same visits."""
    settings = read_settings(config)
    if offline:
        from evaluation.offline import run_offline  # noqa: PLC0415 - reads parquet

        configure_logging("evaluation")
        try:
            run_offline(settings, events, report)
        except OneRecError as error:
            raise fail(error) from error
        return
    from evaluation.prequential import run_prequential  # noqa: PLC0415 - loads the Kafka client

    raise typer.Exit(run_service("evaluator", settings, lambda stop: run_prequential(settings, report, stop)))


def report(
    out: Annotated[Path | None, typer.Option(help="Write the figures to this file; else to the terminal.")] = None,
    config: Config = None,
) -> None:
    """Sum up what the topics hold: lost and duplicated sessions, freshness, latency, validity, rewards, losses."""
    from evaluation.report import summarise  # noqa: PLC0415 - loads the Kafka client

    settings = read_settings(config)
    configure_logging("report")
    try:
        text = json.dumps(summarise(settings.kafka, settings.stream.joiner), indent=2)
    except OneRecError as error:
        raise fail(error) from error
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n")
