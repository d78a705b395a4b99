"""The streaming claims: online learning against a daily refresh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli.options import seeds_of
from onerec.cli.options import fail
from onerec.errors import OneRecError
from onerec.service import configure_logging


def streaming(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A fifth of the users, a short seed, until 28 April: in minutes.")
    ] = False,
    short: Annotated[bool, typer.Option("--short", help="All users and the full seed, until 30 April.")] = False,
    seeds: Annotated[str, typer.Option(help="Seeds, as 1,2,3; all by default in the full form.")] = "",
    power: Annotated[
        float,
        typer.Option("--frequency-power", min=0, max=1, help="Of the trainer: less weight of what is shown often."),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="evaluation/results/streaming[-FORM][-frequency-P].json by default.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Write tables and plot into docs/, too.")] = False,
    choose: Annotated[
        bool, typer.Option("--choose", help="Instead compare recipes on the visits before the report.")
    ] = False,
    daily: Annotated[
        bool, typer.Option("--daily/--without-daily", help="Whether the daily batch is trained, half of the time.")
    ] = True,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Run nothing: report the days that an unfinished run has come to.")
    ] = False,
) -> None:
    """Online learning against a daily refresh and counts, by prequential evaluation; kept in runs/streaming."""
    from evaluation.streaming import protocol, report  # noqa: PLC0415
    from evaluation.streaming import run as runs  # noqa: PLC0415 - loads torch
    from evaluation.table1.report import PAPER, RESULTS, write  # noqa: PLC0415

    configure_logging("evaluation")
    form = protocol.QUICK if quick else protocol.SHORT if short else protocol.FULL
    suffix = "" if form is protocol.FULL else f"-{form.name}"
    if power:
        form = replace(form, recipe=replace(form.recipe, frequency_power=power))
        suffix += f"-frequency-{power:g}"
    chosen = seeds_of(seeds or ("1,2,3" if form.name == protocol.FULL.name else "1"))
    try:
        if choose:
            from evaluation.streaming.choices import choose as compare  # noqa: PLC0415

            write(compare(form), out or RESULTS / f"streaming-choices{suffix}.json")
            return
        if so_far:
            place, until_ms = runs.so_far(form, chosen)
            summary = report.summarise(place, form, until_ms)
        else:
            summary = report.summarise(runs.run(form, chosen, daily=daily), form)
        write(summary, out or RESULTS / f"streaming{suffix}.json")
        if paper:
            from evaluation.streaming.figure import draw  # noqa: PLC0415 - needs matplotlib

            draw(summary, RESULTS / f"streaming{suffix}.png")
            report.write_paper(PAPER, summary, f"../evaluation/results/streaming{suffix}.png")
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(report.table(summary))
