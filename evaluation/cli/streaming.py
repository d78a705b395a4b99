"""The streaming claims: online learning against a daily refresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation.cli.options import seeds_of
from onerec.cli.options import fail
from onerec.errors import OneRecError, SettingsError
from onerec.service import configure_logging

if TYPE_CHECKING:
    from evaluation.streaming.protocol import Form


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
    from evaluation.files import write_json  # noqa: PLC0415
    from evaluation.pages import RESULTS  # noqa: PLC0415
    from evaluation.streaming import protocol, report  # noqa: PLC0415 - loads torch

    configure_logging("evaluation")
    form = protocol.QUICK if quick else protocol.SHORT if short else protocol.FULL
    form = replace(form, recipe=replace(form.recipe, frequency_power=power))
    chosen = seeds_of(seeds or ("1,2,3" if form.name == protocol.FULL.name else "1"))
    try:
        if choose:
            _choose(form, out)
            return
        summary = _summary(form, chosen, daily=daily, so_far=so_far)
        write_json(out or RESULTS / f"streaming{form.suffix}.json", summary)
        if paper:
            _write_paper(form, summary)
    except OneRecError as error:
        raise fail(error) from error
    typer.echo(report.table(summary))


def _choose(form: Form, out: Path | None) -> None:
    from evaluation.files import write_json  # noqa: PLC0415
    from evaluation.pages import RESULTS  # noqa: PLC0415
    from evaluation.streaming.choices import choose  # noqa: PLC0415 - loads torch

    if form.recipe.frequency_power:
        raise SettingsError("--choose compares recipes of its own.", "Leave --frequency-power out.")
    write_json(out or RESULTS / f"streaming-choices{form.suffix}.json", choose(form))


def _summary(form: Form, seeds: Sequence[int], *, daily: bool, so_far: bool) -> dict[str, Any]:
    from evaluation.streaming import report, run  # noqa: PLC0415 - loads torch

    if so_far:
        place, until_ms = run.so_far(form, seeds)
        return report.summarise(place, form, until_ms)
    return report.summarise(run.run(form, seeds, daily=daily), form)


def _write_paper(form: Form, summary: dict[str, Any]) -> None:
    from evaluation.pages import PAPER, RESULTS  # noqa: PLC0415
    from evaluation.streaming import report  # noqa: PLC0415 - loads torch
    from evaluation.streaming.figure import draw  # noqa: PLC0415 - needs matplotlib

    draw(summary, RESULTS / f"streaming{form.suffix}.png")
    report.write_paper(PAPER, summary, f"../evaluation/results/streaming{form.suffix}.png")
